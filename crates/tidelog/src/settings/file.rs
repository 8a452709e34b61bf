//! `tidelog.toml` and `tidelog.json`, with the lines of what they say.
//!
//! A file is one flat table of settings. Relative directories in it count from the file's directory,
//! so that they mean the same wherever a program is started.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use figment::value::Value;
use serde::de::{MapAccess, Visitor};
use serde::{Deserializer, Serialize};
use toml::Spanned;

use super::error::{Problem, SettingsError};
use super::layers::Origin;

/// The names of a store's own file, one of which may be there.
pub(crate) const NAMES: [&str; 2] = ["tidelog.toml", "tidelog.json"];

/// A larger file holds something else.
const BYTES_MAX: u64 = 1 << 20;

/// What a file says of one setting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) value: Value,
    pub(crate) line: usize,
}

/// Reads a file that somebody has named.
///
/// # Errors
/// If it cannot be read or is no file of settings.
pub(crate) async fn read(file: &Path) -> Result<Vec<Line>, SettingsError> {
    let unreadable = |error: io::Error| SettingsError::unreadable(file.to_owned(), &error);
    let metadata = tokio::fs::metadata(file).await.map_err(unreadable)?;
    if metadata.len() > BYTES_MAX {
        return Err(wrong(file, 1, "it is too large for a file of settings".to_owned()));
    }
    let bytes = tokio::fs::read(file).await.map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        wrong(file, lines(valid), "it is not UTF-8 text".to_owned())
    })?;
    parse(file, &text)
}

/// Reads the file of a store in this directory, if it has one.
///
/// # Errors
/// As [`read`], and if there are two files.
pub(crate) async fn read_own(
    directory: &Path,
) -> Result<Option<(PathBuf, Vec<Line>)>, SettingsError> {
    let mut found: Option<(PathBuf, Vec<Line>)> = None;
    for name in NAMES {
        let file = directory.join(name);
        let lines = match read(&file).await {
            Err(error) if error.kind() == tidelog_core::ErrorKind::NotFound => continue,
            lines => lines?,
        };
        if let Some((first, _)) = &found {
            let message = format!("there are settings in {} too; keep one file", first.display());
            return Err(wrong(&file, 1, message));
        }
        found = Some((file, lines));
    }
    Ok(found)
}

fn wrong(file: &Path, line: usize, message: String) -> SettingsError {
    let origin = Origin::File { file: file.to_owned(), line };
    SettingsError::Wrong { problems: vec![Problem { origin, message }] }
}

/// The number of the line that begins or goes on after `text`.
fn lines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn parse(file: &Path, text: &str) -> Result<Vec<Line>, SettingsError> {
    let parsed = match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => parse_toml(text),
        Some("json") => parse_json(text),
        _ => Err((1, "its name ends in neither .toml nor .json; give it one".to_owned())),
    };
    parsed.map_err(|(line, message)| wrong(file, line, message))
}

type Parsed = Result<Vec<Line>, (usize, String)>;

fn parse_toml(text: &str) -> Parsed {
    let line_of = |offset: usize| lines(&text.as_bytes()[..offset.min(text.len())]);
    let table: BTreeMap<Spanned<String>, Spanned<toml::Value>> =
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            (line, one_line(error.message()))
        })?;
    let mut found = Vec::with_capacity(table.len());
    for (name, value) in table {
        let line = line_of(name.span().start);
        let value = to_value(value.get_ref()).map_err(|message| (line, message))?;
        found.push(Line { name: name.into_inner(), value, line });
    }
    found.sort_by_key(|found| found.line);
    Ok(found)
}

fn to_value(value: &impl Serialize) -> Result<Value, String> {
    Value::serialize(value).map_err(|error| error.to_string())
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn parse_json(text: &str) -> Parsed {
    let at = Rc::new(Cell::new(1));
    let reader = CountedLines { bytes: text.as_bytes(), line: Rc::clone(&at) };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let failed = |error: serde_json::Error| (error.line().max(1), one_line(&error.to_string()));
    let found = json.deserialize_map(Members { line: at }).map_err(failed)?;
    json.end().map_err(failed)?;
    Ok(found)
}

/// The members of the one object of a JSON text, with the lines of their names.
struct Members {
    line: Rc<Cell<usize>>,
}

impl<'de> Visitor<'de> for Members {
    type Value = Vec<Line>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Vec<Line>, A::Error> {
        let mut found: Vec<Line> = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            let line = self.line.get();
            if found.iter().any(|other| other.name == name) {
                return Err(serde::de::Error::custom(format!("{name} is set twice; set it once")));
            }
            let value = to_value(&members.next_value::<serde_json::Value>()?);
            let value = value.map_err(serde::de::Error::custom)?;
            found.push(Line { name, value, line });
        }
        Ok(found)
    }
}

/// Bytes that count the lines that were read of them. The JSON reader takes one at a time.
struct CountedLines<'a> {
    bytes: &'a [u8],
    line: Rc<Cell<usize>>,
}

impl Read for CountedLines<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let one = into.len().min(1);
        let count = self.bytes.read(&mut into[..one])?;
        if into[..count].contains(&b'\n') {
            self.line.set(self.line.get() + 1);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Vec<(String, usize)> {
        let lines = parse(Path::new(name), text).unwrap();
        lines.into_iter().map(|line| (line.name, line.line)).collect()
    }

    fn refused(name: &str, text: &str) -> String {
        parse(Path::new(name), text).unwrap_err().to_string()
    }

    #[test]
    fn each_setting_knows_its_line() {
        let toml =
            "# limits\nhot_max_rows = 5\n\nmode = \"shared\" # why\nmemory = '''1\n'''\nb = 1";
        let expected = [("hot_max_rows", 2), ("mode", 4), ("memory", 5), ("b", 7)];
        let expected = expected.map(|(name, line)| (name.to_owned(), line));
        assert_eq!(found("a.toml", toml), expected);
        let json =
            "{\n \"hot_max_rows\": 5,\n\n \"mode\"\n: \"shared\", \"memory\": [\n1]\n,\"b\":1}";
        let expected = [("hot_max_rows", 2), ("mode", 4), ("memory", 5), ("b", 7)];
        let expected = expected.map(|(name, line)| (name.to_owned(), line));
        assert_eq!(found("a.json", json), expected);
    }

    #[test]
    fn what_is_no_file_of_settings_is_refused_with_its_line() {
        for (name, text, line) in [
            ("a.toml", "memory = 1\nmode = ", 2),
            ("a.toml", "memory = 1\n\nmemory = 2", 3),
            ("a.toml", "x", 1),
            ("a.json", "{\n\"memory\": 1,\n\"memory\": 2}", 3),
            ("a.json", "{\n\"memory\": }", 2),
            ("a.json", "{\"memory\": 1}\n\n2", 3),
            ("a.json", "[]", 1),
            ("a.json", "", 1),
            ("a.yaml", "memory: 1", 1),
        ] {
            let said = refused(name, text);
            assert!(said.starts_with(&format!("{name}, line {line}: ")), "{text:?}: {said}");
        }
        assert_eq!(found("a.toml", ""), []);
        assert_eq!(found("a.json", "{}"), []);
    }
}
