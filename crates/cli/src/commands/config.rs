//! Settings, shown and checked.

use std::path::Path;

use serde_json::{Value, json};
use tidelog::settings::{Loaded, SETTINGS, Setting, check_file};

use crate::args::Globals;
use crate::error::Result;
use crate::output;
use crate::settings::layers;

pub(super) async fn show(globals: &Globals) -> Result<()> {
    let loaded = layers(globals).load().await?;
    if globals.json {
        return output::print_json(&document(&loaded));
    }
    let rows: Vec<Vec<String>> = SETTINGS.iter().map(|setting| row(&loaded, setting)).collect();
    output::print(&output::columns(Some(&["setting", "value", "from"]), &rows, &[]))
}

fn row(loaded: &Loaded, setting: &Setting) -> Vec<String> {
    let value = loaded.settings.value(setting.name);
    let shown = value.unwrap_or_else(|| setting.default.replace('`', ""));
    vec![setting.name.to_owned(), shown, loaded.origin(setting.name).to_string()]
}

fn document(loaded: &Loaded) -> Value {
    let settings = SETTINGS.iter().map(|setting| {
        let origin = loaded.origin(setting.name);
        json!({
            "name": setting.name,
            "value": loaded.settings.value(setting.name),
            "layer": origin.name(),
            "from": origin.to_string(),
            "variable": setting.variable(),
            "flag": setting.flag(),
            "changeable": setting.changeable.name(),
        })
    });
    json!({
        "file": loaded.file.as_ref().map(|file| file.display().to_string()),
        "settings": settings.collect::<Vec<_>>(),
    })
}

pub(super) async fn check(globals: &Globals, file: Option<&Path>) -> Result<()> {
    let (what, count) = match file {
        Some(file) => (file.display().to_string(), check_file(file).await?),
        None => {
            let loaded = layers(globals).load().await?;
            let of_default = |setting: &&Setting| loaded.origin(setting.name).name() == "default";
            let count = SETTINGS.len() - SETTINGS.iter().filter(of_default).count();
            (loaded.file.map_or("settings".to_owned(), |file| file.display().to_string()), count)
        }
    };
    if globals.json {
        return output::print_json(&json!({ "checked": what, "settings": count }));
    }
    output::print(&format!("{what}: nothing is wrong\n"))
}
