//! Commits that carry those before them, so that whoever is behind reads several with one request.
//!
//! Where many write, each reads what all others commit. So a commit holds, besides its own text, the texts of
//! the few commits before it:
//!
//! ```text
//! {"commitInfo":{ … ,"tidelogBefore":["<text of N-3>","<text of N-2>","<text of N-1>"]}}
//! {"add":{ … }}
//! ```
//!
//! What it carries stands at the end of its first line; without that, it is the commit's own text, which is
//! all that the log rests on. In the text of a commit, JSON, quotes within strings are escaped, so that
//! nothing else looks like the place where they begin.

use std::collections::VecDeque;

use bytes::Bytes;
use tidelog_core::CommitVersion;
use tidelog_storage::object_store::path::Path;

use crate::commit::{self, Commit};
use crate::error::Error;

/// How many commits another carries.
pub(crate) const CARRIED_MAX: usize = 3;
/// So many others must write that what is carried is read.
pub(crate) const CARRIED_FROM_RIVALS: usize = 4;
/// Longer texts are not carried: most of what is read would be read in vain.
const TEXT_BYTES_MAX: usize = 16 * 1024;

const BEGIN: &[u8] = b",\"tidelogBefore\":[";
const END: &[u8] = b"]}}";
/// How the first line of a commit ends without it.
const PLAIN_END: &[u8] = b"}}";

/// A commit's object in two: its own text, and what it carries, a JSON list of texts.
pub(crate) struct Parted {
    pub(crate) text: Bytes,
    carried: Option<Bytes>,
}

impl Parted {
    pub(crate) fn new(object: &Bytes) -> Self {
        let whole = || Self { text: object.clone(), carried: None };
        let line = object.iter().position(|byte| *byte == b'\n').unwrap_or(object.len());
        let begin = object[..line].windows(BEGIN.len()).position(|bytes| bytes == BEGIN);
        let Some(begin) = begin.filter(|_| object[..line].ends_with(END)) else { return whole() };
        let text = [&object[..begin], PLAIN_END, &object[line..]].concat();
        let list = begin + BEGIN.len() - 1..line - PLAIN_END.len();
        Self { text: text.into(), carried: Some(object.slice(list)) }
    }

    /// The commits that the commit `version` carries, oldest first; each is read as its own object would be.
    pub(crate) fn commits(
        &self,
        prefix: &Path,
        version: CommitVersion,
    ) -> Result<Vec<Commit>, Error> {
        let Some(list) = &self.carried else { return Ok(Vec::new()) };
        let texts: Vec<String> = serde_json::from_slice(list).map_err(|error| {
            let object = commit::object_of(prefix, version).to_string();
            let reason = format!("what it carries cannot be read: {error}");
            Error::DamagedCommit { commit: version, object, reason }
        })?;
        let first = version.number() - i64::try_from(texts.len()).unwrap_or(i64::MAX);
        let numbered = (first..).map(CommitVersion::new).zip(texts);
        numbered
            .filter(|(version, _)| version.number() >= 0)
            .map(|(version, text)| {
                commit::decode(&commit::object_of(prefix, version), version, &Bytes::from(text))
            })
            .collect()
    }
}

/// The texts of the newest commits that a handle has seen.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    texts: VecDeque<Bytes>,
    last: Option<CommitVersion>,
}

impl Recent {
    /// Notes a commit, unless it or a later one is noted already.
    pub(crate) fn note(&mut self, commit: &Commit) {
        match self.last {
            Some(last) if commit.version <= last => return,
            Some(last) if commit.version == last.next() => {}
            _ => self.texts.clear(),
        }
        self.last = Some(commit.version);
        if commit.text.len() > TEXT_BYTES_MAX {
            return self.texts.clear();
        }
        self.texts.push_back(commit.text.clone());
        if self.texts.len() > CARRIED_MAX {
            self.texts.pop_front();
        }
    }

    /// The texts of the commits up to `last`, oldest first, if that is the newest.
    pub(crate) fn up_to(&self, last: CommitVersion) -> Vec<Bytes> {
        let is_last = self.last == Some(last);
        self.texts.iter().filter(|_| is_last).cloned().collect()
    }
}

/// The object of the commit with this text, which carries others.
pub(crate) fn carrying(text: &Bytes, before: &[Bytes]) -> Result<Bytes, Error> {
    let line = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    if before.is_empty() || !text[..line].ends_with(PLAIN_END) {
        return Ok(text.clone());
    }
    let before: Vec<&str> = before
        .iter()
        .map(|text| std::str::from_utf8(text).map_err(Error::encode))
        .collect::<Result<_, _>>()?;
    let list = serde_json::to_vec(&before).map_err(Error::encode)?;
    let own = &text[..line - PLAIN_END.len()];
    // The list has brackets of its own.
    let begin = &BEGIN[..BEGIN.len() - 1];
    Ok([own, begin, list.as_slice(), PLAIN_END, &text[line..]].concat().into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidelog_core::env::SystemRandomness;
    use tidelog_core::{Env, NodeId, TreePath, WriteTime};
    use tidelog_storage::CountingStore;
    use tidelog_storage::counting::Operation;
    use tidelog_storage::object_store::memory::InMemory;
    use tidelog_storage::object_store::{ObjectStore, ObjectStoreExt};

    use super::*;
    use crate::check::LogCheck;
    use crate::row::{EntryType, Row, TreeOp, TreeRow};
    use crate::{CommitDraft, CommitOutcome, Log, LogOptions};

    fn text(number: usize) -> Bytes {
        format!(
            "{{\"commitInfo\":{{\"n\":{number},\"s\":\"\\\",\\\"tidelogBefore\\\":[]}}}}\"}}}}\n\
             {{\"add\":{{\"path\":\"ü\\n\"}}}}\n"
        )
        .into()
    }

    #[test]
    fn what_is_carried_comes_off_again() {
        let before: Vec<Bytes> = (0..3).map(text).collect();
        let object = carrying(&text(3), &before).unwrap();
        let parted = Parted::new(&object);
        assert_eq!(parted.text, text(3));
        let list: Vec<String> = serde_json::from_slice(&parted.carried.unwrap()).unwrap();
        assert_eq!(list.iter().map(String::as_bytes).collect::<Vec<_>>(), before);
        // Delta's readers see a line of JSON.
        let line = object.split(|byte| *byte == b'\n').next().unwrap();
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        assert_eq!(line["commitInfo"]["tidelogBefore"].as_array().unwrap().len(), 3);
        let alone = Parted::new(&text(3));
        assert!(alone.text == text(3) && alone.carried.is_none());
        assert_eq!(carrying(&text(3), &[]).unwrap(), text(3));
    }

    #[test]
    fn what_is_carried_does_not_carry() {
        let mut object = text(0);
        for number in 1..50 {
            object = carrying(&text(number), &[Parted::new(&object).text]).unwrap();
        }
        assert!(object.len() < 3 * text(0).len());
    }

    /// Makes a directory.
    async fn commit(log: &Log, name: &str) {
        let base = log.refresh().await.unwrap();
        let row = Row::Tree(TreeRow {
            op: TreeOp::Create,
            node: NodeId::random(&SystemRandomness),
            entry: EntryType::Directory,
            path: TreePath::parse(name).unwrap(),
            timestamp: WriteTime::from_micros(base.last_write().micros() + 1),
            schema: None,
            options: None,
            commit: CommitVersion::default(),
        });
        let draft = CommitDraft { rows: vec![row], ..CommitDraft::default() };
        let staged = log.stage(&base, draft).unwrap();
        log.put_part(&staged).await.unwrap();
        let outcome = log.publish(staged).await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed(_)));
    }

    fn gets(counting: &CountingStore) -> usize {
        counting.take().iter().filter(|request| request.operation == Operation::Get).count()
    }

    /// Eight handles that commit in turn, so that each carries those before it from the second round on;
    /// and one of them that has not looked for `behind` commits, with the store that counts its requests.
    async fn many_writers(behind: usize) -> (Arc<dyn ObjectStore>, Log, CountingStore) {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        Log::create(Arc::clone(&store), Env::default(), &LogOptions::default()).await.unwrap();
        let counting = CountingStore::new(Arc::clone(&store));
        let ours = Log::open(Arc::new(counting.clone()), Env::default()).await.unwrap();
        let mut others = Vec::new();
        for _ in 0..7 {
            others.push(Log::open(Arc::clone(&store), Env::default()).await.unwrap());
        }
        for round in 0..2 {
            for (i, log) in others.iter().chain([&ours]).enumerate() {
                commit(log, &format!("/{round}-{i}")).await;
            }
        }
        for number in 0..behind {
            commit(&others[number % others.len()], &format!("/late-{number}")).await;
        }
        assert!(!counting.take().is_empty());
        (store, ours, counting)
    }

    #[tokio::test]
    async fn who_is_behind_reads_four_commits_at_once() {
        let (_, log, counting) = many_writers(12).await;
        let head = log.refresh_to_turn(12).await.unwrap();
        assert_eq!((head.head().number(), gets(&counting)), (28, 3));
        assert_eq!(head.tree().len(), 29);
        assert_eq!(log.refresh().await.unwrap().head(), head.head());
        assert_eq!(gets(&counting), 1);
    }

    /// However many commits are taken for likely, all that are there are read, and once.
    #[tokio::test]
    async fn a_wrong_guess_costs_a_request_at_most() {
        for behind in 0..=9 {
            for likely in [0, 3, 4, 7, 8, 40] {
                let (store, log, counting) = many_writers(behind).await;
                let found = log.refresh_to_turn(likely).await.unwrap();
                let expected = Log::open(store, Env::default()).await.unwrap().snapshot();
                // Seven others write: beyond their turn nothing is asked for.
                let beyond = i64::try_from(behind).unwrap() - 7;
                let missing = expected.head().number() - found.head().number();
                assert!(missing == 0 || missing <= beyond, "{behind} {likely}: {missing} missing");
                assert!(gets(&counting) <= behind + 2, "{behind} {likely}");
                let found = log.refresh().await.unwrap();
                assert_eq!(found.head(), expected.head());
                assert_eq!(found.tree().len(), expected.tree().len());
            }
        }
    }

    #[tokio::test]
    async fn a_check_finds_a_commit_that_carries_another_than_there_is() {
        let (store, log, _) = many_writers(2).await;
        assert!(
            LogCheck::begin(Arc::clone(&store), &Env::default()).await.unwrap().damage.is_empty()
        );
        let path = commit::object_of(&log.objects().prefix, CommitVersion::new(17));
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        let begin = text.find("tidelogBefore").unwrap();
        let at = begin + text[begin..].find("timestamp").unwrap() + 13;
        let mut wrong = bytes.to_vec();
        wrong[at] = if wrong[at] == b'1' { b'2' } else { b'1' };
        store.put(&path, Bytes::from(wrong).into()).await.unwrap();
        let found = LogCheck::begin(Arc::clone(&store), &Env::default()).await.unwrap();
        let problem = &found.damage[0].problem;
        assert!(problem.contains("carries another commit"), "{problem}");
    }
}
