//! How a series lies in files.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use tidelog::{LayoutFile, SeriesLayout};

use crate::args::{Globals, LayoutArgs};
use crate::commands::compact::merge_json;
use crate::commands::{layout_json, open, range_json, tree_path};
use crate::drawing;
use crate::error::Result;
use crate::output;

pub(super) async fn layout(globals: &Globals, args: &LayoutArgs) -> Result<()> {
    let layout = open(globals).await?.layout(tree_path(&args.path)).await?;
    if let Some(file) = &args.svg {
        write(file, &drawing::picture(&layout))?;
    }
    if let Some(file) = &args.html {
        write(file, &drawing::page(&layout))?;
    }
    if globals.json {
        return output::print_json(&document(&layout));
    }
    match args.svg.is_some() || args.html.is_some() {
        true => Ok(()),
        false => output::print(&drawing::text(&layout)),
    }
}

/// The file appears only when it is complete.
fn write(file: &Path, text: &str) -> Result<()> {
    let mut sink = output::open_file(Some(file))?;
    let written = sink.write_all(text.as_bytes());
    written.map_err(|error| output::failed(Some(file), error))?;
    sink.commit()
}

fn document(layout: &SeriesLayout) -> Value {
    json!({
        "path": layout.path.as_str(),
        "version": layout.version.number(),
        "event_times": range_json(layout.range),
        "overlap": layout.depth,
        "layout": layout_json(&layout.layout),
        "bytes": layout.file_bytes(),
        "next": layout.next.iter().map(merge_json).collect::<Vec<_>>(),
        "files": layout.files.iter().map(file_json).collect::<Vec<_>>(),
    })
}

fn file_json(file: &LayoutFile) -> Value {
    json!({
        "object": file.object,
        "event_times": range_json(Some(file.range)),
        "versions": [file.first_version.number(), file.last_version.number()],
        "rows": file.rows,
        "bytes": file.bytes,
        "row_groups": file.row_groups,
        "order": file.order.name(),
        "partition": file.partition,
        "codec": file.codec.map(|codec| codec.to_string()),
        "superseded": file.superseded,
        "unique_rows": file.unique,
        "lane": file.lane,
    })
}
