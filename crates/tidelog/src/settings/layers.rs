//! Reading all layers, and who has said what.
//!
//! Each value that somebody has written is an [`Entry`]. Entries are checked one by one, so that all
//! that is wrong is told at once, and each with its place; then figment merges them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use tidelog_storage::Location;

use super::Settings;
use super::error::{Problem, SettingsError};
use super::file::{self, Line};
use super::preset::Preset;
use super::table::{self, SETTINGS, Setting};

/// What names of environment variables begin with.
const PREFIX: &str = "TIDELOG_";
/// The variable that names a file.
const FILE_VARIABLE: &str = "TIDELOG_CONFIG";
/// The settings whose values are directories, which count from the directory of their file.
const DIRECTORIES: [&str; 2] = ["wal_dir", "cache"];

/// Who has said what a setting is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody.
    Default,
    /// The program, where nobody else does.
    Program,
    /// A preset.
    Preset(Preset),
    /// A file.
    File {
        /// The file.
        file: PathBuf,
        /// The line, from 1 on.
        line: usize,
    },
    /// A variable of the environment.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A flag of the command line.
    Flag {
        /// The flag.
        flag: String,
    },
    /// A call of the [builder](crate::StoreBuilder).
    Call,
}

impl Origin {
    /// What it is, as a word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Program => "program",
            Self::Preset(_) => "preset",
            Self::File { .. } => "file",
            Self::Environment { .. } => "environment",
            Self::Flag { .. } => "flag",
            Self::Call => "call",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Program => f.write_str("default of this program"),
            Self::Preset(preset) => write!(f, "preset {}", preset.name()),
            Self::File { file, line } => write!(f, "{}, line {line}", file.display()),
            Self::Environment { variable } => write!(f, "environment, {variable}"),
            Self::Flag { flag } => f.write_str(flag),
            Self::Call => f.write_str("set by the program"),
        }
    }
}

/// What somebody has written of one setting.
#[derive(Clone)]
struct Entry {
    setting: &'static Setting,
    value: Value,
    origin: Origin,
}

/// Values may be locations with secrets in them.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.setting.name, self.origin)
    }
}

impl Provider for Entry {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = Dict::from([(self.setting.name.to_owned(), self.value.clone())]);
        Ok(Profile::Default.collect(dict))
    }
}

impl Entry {
    fn text(setting: &'static Setting, text: &str, origin: Origin) -> Self {
        Self { setting, value: Value::from(text), origin }
    }

    /// The settings with nothing but this one.
    fn read(&self) -> Result<Settings, Problem> {
        let read = Figment::from(self.clone()).extract::<Settings>();
        let settings = read.map_err(|error| {
            let Setting { name, takes, .. } = self.setting;
            let why = match error.kind {
                Kind::UnknownVariant(found, _) => format!("{found:?} is unknown"),
                why => why.to_string(),
            };
            self.problem(format!("{name}: {why}; it takes {}", takes.replace('`', "")))
        })?;
        if settings.log_retention.subsec_nanos() != 0 && self.origin != Origin::Call {
            return Err(self.problem("log_retention takes whole seconds, such as 12h".to_owned()));
        }
        Ok(settings)
    }

    fn problem(&self, message: String) -> Problem {
        Problem { origin: self.origin.clone(), message }
    }
}

/// Where settings come from. Nothing is read before [`Layers::load`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tidelog::settings::Layers;
///
/// let environment = [("TIDELOG_HOT_MAX_ROWS".into(), "5000".into())];
/// let loaded = Layers::new().with_environment(environment).load().await?;
/// assert_eq!(loaded.settings.hot_max_rows, 5000);
/// assert_eq!(loaded.origin("hot_max_rows").to_string(), "environment, TIDELOG_HOT_MAX_ROWS");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Layers {
    program: Vec<Entry>,
    file: Option<PathBuf>,
    without_own_file: bool,
    /// Whether the store is an object store that a program has made, whatever its location.
    given_store: bool,
    environment: Vec<(String, Option<String>)>,
    set: Vec<Entry>,
    /// What was wrong with names given so far.
    problems: Vec<Problem>,
}

/// Values may be locations with secrets in them.
impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<&String> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Layers")
            .field("program", &self.program)
            .field("file", &self.file)
            .field("without_own_file", &self.without_own_file)
            .field("given_store", &self.given_store)
            .field("environment", &variables)
            .field("set", &self.set)
            .field("problems", &self.problems)
            .finish()
    }
}

/// Settings, and who has said them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Who has said what the setting of this name is.
    #[must_use]
    pub fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or(Origin::Default)
    }

    /// The settings that a text has set: in a preset, a file, the environment or a flag.
    pub(crate) fn of_texts(&self) -> impl Iterator<Item = &'static str> {
        let said = self.origins.iter().filter(|(_, origin)| **origin != Origin::Call);
        said.map(|(name, _)| *name)
    }
}

impl Layers {
    /// Nothing but defaults, and the file of a store in a directory once that is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the program's own default of a setting; it stands below presets, files and all else.
    pub fn with_default(mut self, name: &str, value: &str) -> Self {
        if let Some(entry) = self.entry(name, value, Origin::Program) {
            self.program.push(entry);
        }
        self
    }

    /// Reads this file instead of the one in the store's directory. It must be there, and its name
    /// ends in `.toml` or `.json`. Default: the store's own, if it has one.
    pub fn with_config_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Does not read the file in the store's directory. Default: it is read.
    pub fn without_own_file(mut self) -> Self {
        self.without_own_file = true;
        self
    }

    /// Takes variables that begin with `TIDELOG_`, such as those of [`std::env::vars_os`]; empty ones
    /// count as not set. Default: none, the environment is not read.
    pub fn with_environment(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let ours = variables.into_iter().filter_map(|(variable, value)| {
            let variable = variable.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
            (!value.is_empty()).then(|| (variable, value.into_string().ok()))
        });
        self.environment.extend(ours);
        self.environment.sort();
        self
    }

    /// Sets a setting as the user of a command line has, by its flag; it wins over all before.
    pub fn with_flag(mut self, name: &str, value: &str) -> Self {
        let flag = table::find(name).map_or_else(|| format!("--{name}"), Setting::flag);
        if let Some(entry) = self.entry(name, value, Origin::Flag { flag }) {
            self.set.push(entry);
        }
        self
    }

    /// Notes what a call of the builder has set.
    pub(crate) fn called(&mut self, name: &str, value: &str) {
        if let Some(entry) = self.entry(name, value, Origin::Call) {
            self.set.push(entry);
        }
    }

    /// The store is an object store that a program has made: no directory that has a file of its own.
    pub(crate) fn of_given_store(&mut self) {
        self.given_store = true;
    }

    /// Puts what `self` has been told by calls above what `other` has.
    pub(crate) fn over(self, mut other: Self) -> Self {
        other.file = self.file.or(other.file);
        other.without_own_file |= self.without_own_file;
        other.given_store |= self.given_store;
        other.environment.extend(self.environment);
        other.set.extend(self.set);
        other.problems.extend(self.problems);
        other
    }

    /// An entry for the setting of this name; if there is none, that is told at loading.
    fn entry(&mut self, name: &str, value: &str, origin: Origin) -> Option<Entry> {
        match table::find(name) {
            Some(setting) => Some(Entry::text(setting, value, origin)),
            None => {
                self.problems.push(unknown(name, name, origin));
                None
            }
        }
    }

    /// Reads all layers.
    ///
    /// # Errors
    /// If a file cannot be read, or anything is wrong; all that is wrong is told.
    pub async fn load(&self) -> crate::Result<Loaded> {
        Ok(self.read().await?)
    }

    /// The files that may be read for the store at `location`.
    pub(crate) fn files(&self, location: Option<&str>) -> Vec<PathBuf> {
        match (self.named_file(), self.directory(location)) {
            (Some(file), _) => vec![file],
            (None, Some(directory)) if !self.without_own_file => {
                file::NAMES.iter().map(|name| directory.join(name)).collect()
            }
            _ => Vec::new(),
        }
    }

    async fn read(&self) -> Result<Loaded, SettingsError> {
        let mut problems = self.problems.clone();
        let environment = self.environment_entries(&mut problems);
        let mut of_file = Vec::new();
        let mut file = self.named_file();
        if let Some(file) = &file {
            of_file = entries_of(file, file::read(file).await?, &mut problems);
        }
        let above =
            |of_file: &[Entry]| -> Vec<Entry> { [of_file, &environment, &self.set].concat() };
        let location = last(&above(&of_file), "store");
        let directory = self.directory(location.as_deref());
        if let (None, false, Some(directory)) = (&file, self.without_own_file, &directory)
            && let Some((own, lines)) = file::read_own(directory).await?
        {
            of_file = entries_of(&own, lines, &mut problems);
            refuse_location(&of_file, &mut problems);
            file = Some(own);
        }
        let mut entries: Vec<Entry> =
            directory.iter().filter_map(|_| mode_of_directory()).collect();
        entries.extend(self.program.iter().cloned());
        entries.extend(preset_entries(&above(&of_file)));
        entries.extend(above(&of_file));
        merged(entries, file, problems)
    }

    /// The directory of the store at this location, if it is one in a directory.
    fn directory(&self, location: Option<&str>) -> Option<PathBuf> {
        location.filter(|_| !self.given_store).and_then(local_directory)
    }

    fn named_file(&self) -> Option<PathBuf> {
        let of_environment = || {
            let mut variables = self.environment.iter();
            let (_, value) = variables.find(|(variable, _)| variable == FILE_VARIABLE)?;
            value.as_ref().map(PathBuf::from)
        };
        self.file.clone().or_else(of_environment)
    }

    fn environment_entries(&self, problems: &mut Vec<Problem>) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (variable, value) in &self.environment {
            let origin = Origin::Environment { variable: variable.clone() };
            let name = variable.trim_start_matches(PREFIX).to_ascii_lowercase();
            match (table::find(&name).filter(|setting| setting.variable() == *variable), value) {
                (_, None) => {
                    let message = "its value is not UTF-8; write it in UTF-8".to_owned();
                    problems.push(Problem { origin, message });
                }
                (Some(setting), Some(value)) => entries.push(Entry::text(setting, value, origin)),
                _ if variable == FILE_VARIABLE => {}
                (None, Some(_)) => problems.push(unknown(variable, &name, origin)),
            }
        }
        entries
    }
}

fn unknown(written: &str, name: &str, origin: Origin) -> Problem {
    let is_variable = matches!(origin, Origin::Environment { .. });
    let remedy = match table::nearest(name) {
        Some(like) if is_variable => format!("did you mean {}?", like.variable()),
        Some(like) => format!("did you mean {}?", like.name),
        None => "`tidelog config show` lists all settings".to_owned(),
    };
    Problem { origin, message: format!("{written:?} is no setting; {remedy}") }
}

fn entries_of(file: &Path, lines: Vec<Line>, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut entries = Vec::new();
    for Line { name, value, line } in lines {
        let origin = Origin::File { file: file.to_owned(), line };
        let Some(setting) = table::find(&name) else {
            problems.push(unknown(&name, &name, origin));
            continue;
        };
        let is_place = DIRECTORIES.contains(&setting.name)
            || (setting.name == "store"
                && value.as_str().is_some_and(|text| !text.contains("://")));
        let value = match value.as_str().filter(|text| is_place && !text.is_empty()) {
            Some(place) => Value::from(directory.join(place).display().to_string()),
            None => value,
        };
        entries.push(Entry { setting, value, origin });
    }
    entries
}

/// A store's own file is found by its location and cannot name another.
fn refuse_location(of_file: &[Entry], problems: &mut Vec<Problem>) {
    let message =
        "store: a file in a store's directory cannot say where the store is; leave it out";
    let named = of_file.iter().filter(|entry| entry.setting.name == "store");
    problems.extend(named.map(|entry| entry.problem(message.to_owned())));
}

/// The text of the last entry of a setting.
fn last(entries: &[Entry], name: &str) -> Option<String> {
    let entry = entries.iter().rev().find(|entry| entry.setting.name == name)?;
    entry.value.as_str().map(str::to_owned)
}

fn local_directory(location: &str) -> Option<PathBuf> {
    let location: Location = location.parse().ok()?;
    location.local_path().map(Path::to_owned)
}

/// Who writes to a store in a directory if nobody says so: there its write-ahead log has a place.
fn mode_of_directory() -> Option<Entry> {
    Some(Entry::text(table::find("mode")?, "exclusive", Origin::Default))
}

/// What the preset sets that is chosen, if it is one.
fn preset_entries(above: &[Entry]) -> Vec<Entry> {
    let chosen = last(above, "preset").and_then(|name| Value::from(name).deserialize().ok());
    let Some(preset): Option<Preset> = chosen else { return Vec::new() };
    let entry = |(name, text): &(&str, &str)| {
        Some(Entry::text(table::find(name)?, text, Origin::Preset(preset)))
    };
    preset.settings().iter().filter_map(entry).collect()
}

fn merged(
    entries: Vec<Entry>,
    file: Option<PathBuf>,
    mut problems: Vec<Problem>,
) -> Result<Loaded, SettingsError> {
    problems.extend(entries.iter().filter_map(|entry| entry.read().err()));
    if !problems.is_empty() {
        return Err(SettingsError::Wrong { problems });
    }
    let figment = entries.iter().cloned().fold(Figment::new(), Figment::merge);
    let settings = figment.extract::<Settings>().map_err(|error| {
        let (origin, message) = (Origin::Default, error.to_string());
        SettingsError::Wrong { problems: vec![Problem { origin, message }] }
    })?;
    // The last one wins, as in figment.
    let origins = entries.into_iter().map(|entry| (entry.setting.name, entry.origin)).collect();
    Ok(Loaded { settings, file, origins })
}

/// Checks a file of settings; tells how many it sets.
///
/// # Errors
/// If it cannot be read, or anything in it is wrong; all that is wrong is told.
pub async fn check_file(file: impl AsRef<Path>) -> crate::Result<usize> {
    let file = file.as_ref();
    let mut problems = Vec::new();
    let entries = entries_of(file, file::read(file).await?, &mut problems);
    let count = entries.len();
    merged(entries, Some(file.to_owned()), problems)?;
    Ok(count)
}

/// Checks a text as the value of the setting of this name; the error says what is wrong with it.
///
/// # Errors
/// If there is no such setting, or it does not take the value.
pub fn check_value(name: &str, value: &str) -> Result<(), String> {
    let setting = SETTINGS.iter().find(|setting| setting.name == name);
    let setting = setting.ok_or_else(|| unknown(name, name, Origin::Call).message)?;
    let flag = Origin::Flag { flag: setting.flag() };
    Entry::text(setting, value, flag).read().map(|_| ()).map_err(|problem| problem.message)
}
