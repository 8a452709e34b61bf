//! What a check says about one thing.

use std::fmt;

use tidelog_core::Version;

/// Something that is wrong, or worth knowing: which object, whose rows, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The object, relative to the store's root.
    pub object: Option<String>,
    /// The series, or the first and last of many (`/a … /b`).
    pub path: Option<String>,
    /// The versions that have to do with it, from the first to the last.
    pub versions: Option<(Version, Version)>,
    /// How many rows have to do with it.
    pub rows: Option<u64>,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// Something that is wrong, and what to do about it.
    #[must_use]
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            object: None,
            path: None,
            versions: None,
            rows: None,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// Names the object. Default: none.
    #[must_use]
    pub fn with_object(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Names the series. Default: none.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Names the versions, from the first to the last. Default: none.
    #[must_use]
    pub fn with_versions(mut self, first: Version, last: Version) -> Self {
        self.versions = Some((first, last));
        self
    }

    /// Tells the number of rows. Default: none.
    #[must_use]
    pub fn with_rows(mut self, rows: u64) -> Self {
        self.rows = Some(rows);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions = self.versions.map(|(first, last)| {
            if first == last { first.to_string() } else { format!("{first}…{last}") }
        });
        let rows = self.rows.map(|rows| format!("{rows} rows"));
        let of = [self.path.clone(), versions, rows];
        let of: Vec<String> = of.into_iter().flatten().collect();
        match (&self.object, of.is_empty()) {
            (Some(object), true) => write!(f, "{object}: ")?,
            (Some(object), false) => write!(f, "{object} ({}): ", of.join(", "))?,
            (None, true) => {}
            (None, false) => write!(f, "{}: ", of.join(", "))?,
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_all_that_it_names() {
        let finding = Finding::new("it is missing", "restore it");
        assert_eq!(finding.to_string(), "it is missing; restore it");
        let finding = finding.with_path("/a").with_versions(Version::new(2), Version::new(2));
        assert_eq!(finding.to_string(), "/a, v2: it is missing; restore it");
        let finding = finding.with_object("series/x").with_rows(3);
        assert_eq!(finding.to_string(), "series/x (/a, v2, 3 rows): it is missing; restore it");
    }
}
