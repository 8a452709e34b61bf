//! Buckets with their objects and uploads.
//!
//! The server holds one lock round each call, so that a condition and what it guards are one step.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use ring::digest;
use tidelog_core::env::SystemClock;
use tidelog_core::{Clock, WriteTime};

use super::auth::hex;

/// What must hold for a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    None,
    /// Nothing has this key.
    Absent,
    /// What has it has this tag.
    Tag(String),
    /// What has it is of this generation.
    Generation(u64),
}

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    NoBucket,
    NoKey,
    NoUpload,
    Condition,
    Part,
}

/// An object.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) bytes: Bytes,
    pub(crate) e_tag: String,
    pub(crate) modified: WriteTime,
    pub(crate) generation: u64,
}

/// One page of a list.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, Object)>,
    pub(crate) prefixes: Vec<String>,
    /// What the next page begins after.
    pub(crate) next: Option<String>,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    pub(crate) prefix: String,
    pub(crate) delimiter: Option<String>,
    pub(crate) after: String,
    pub(crate) max: usize,
    /// So many of the newest objects are left out, as a server does whose lists lag behind.
    pub(crate) stale: u64,
}

#[derive(Debug)]
struct Upload {
    bucket: String,
    key: String,
    parts: BTreeMap<u32, (String, Bytes)>,
}

/// All that the server keeps.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    buckets: BTreeMap<String, BTreeMap<String, Object>>,
    uploads: BTreeMap<String, Upload>,
    generation: u64,
}

impl Buckets {
    pub(crate) fn create_bucket(&mut self, name: &str) {
        self.buckets.entry(name.to_owned()).or_default();
    }

    pub(crate) fn keys(&self, bucket: &str) -> Vec<String> {
        self.buckets.get(bucket).map(|b| b.keys().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn check_bucket(&self, bucket: &str) -> Result<(), Refused> {
        if self.buckets.contains_key(bucket) { Ok(()) } else { Err(Refused::NoBucket) }
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> Result<Object, Refused> {
        let objects = self.buckets.get(bucket).ok_or(Refused::NoBucket)?;
        objects.get(key).cloned().ok_or(Refused::NoKey)
    }

    pub(crate) fn put(
        &mut self,
        bucket: &str,
        key: &str,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<Object, Refused> {
        let found = match self.get(bucket, key) {
            Ok(object) => Some(object),
            Err(Refused::NoKey) => None,
            Err(refused) => return Err(refused),
        };
        match (condition, &found) {
            (Condition::None, _) | (Condition::Absent, None) => {}
            (Condition::Tag(tag), Some(object)) if *tag == object.e_tag => {}
            (Condition::Generation(number), Some(object)) if *number == object.generation => {}
            // As S3 answers a comparison with what is not there.
            (Condition::Tag(_), None) => return Err(Refused::NoKey),
            _ => return Err(Refused::Condition),
        }
        self.generation += 1;
        let hash = digest::digest(&digest::SHA256, &bytes);
        let object = Object {
            e_tag: format!("\"{}\"", hex(hash.as_ref().get(..16).unwrap_or_default())),
            bytes,
            modified: SystemClock.now(),
            generation: self.generation,
        };
        let objects = self.buckets.get_mut(bucket).ok_or(Refused::NoBucket)?;
        objects.insert(key.to_owned(), object.clone());
        Ok(object)
    }

    pub(crate) fn delete(&mut self, bucket: &str, key: &str) -> Result<(), Refused> {
        let objects = self.buckets.get_mut(bucket).ok_or(Refused::NoBucket)?;
        objects.remove(key).map(|_| ()).ok_or(Refused::NoKey)
    }

    pub(crate) fn create_upload(&mut self, bucket: &str, key: &str) -> Result<String, Refused> {
        self.check_bucket(bucket)?;
        self.generation += 1;
        let id = format!("upload-{}", self.generation);
        let upload =
            Upload { bucket: bucket.to_owned(), key: key.to_owned(), parts: BTreeMap::new() };
        self.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    pub(crate) fn put_part(
        &mut self,
        id: &str,
        part: u32,
        bytes: Bytes,
    ) -> Result<String, Refused> {
        let upload = self.uploads.get_mut(id).ok_or(Refused::NoUpload)?;
        let hash = digest::digest(&digest::SHA256, &bytes);
        let e_tag = format!("\"{}\"", hex(hash.as_ref().get(..16).unwrap_or_default()));
        upload.parts.insert(part, (e_tag.clone(), bytes));
        Ok(e_tag)
    }

    /// Puts the parts, by number and tag, together. The upload stays if a condition fails.
    pub(crate) fn complete_upload(
        &mut self,
        id: &str,
        parts: &[(u32, String)],
        condition: &Condition,
    ) -> Result<Object, Refused> {
        let upload = self.uploads.get(id).ok_or(Refused::NoUpload)?;
        let mut whole = BytesMut::new();
        for (number, tag) in parts {
            match upload.parts.get(number) {
                Some((found, bytes)) if found == tag => whole.extend_from_slice(bytes),
                _ => return Err(Refused::Part),
            }
        }
        let (bucket, key) = (upload.bucket.clone(), upload.key.clone());
        let object = self.put(&bucket, &key, whole.freeze(), condition)?;
        self.uploads.remove(id);
        Ok(object)
    }

    pub(crate) fn abort_upload(&mut self, id: &str) -> Result<(), Refused> {
        self.uploads.remove(id).map(|_| ()).ok_or(Refused::NoUpload)
    }

    pub(crate) fn list(&self, bucket: &str, listing: &Listing) -> Result<Page, Refused> {
        let objects = self.buckets.get(bucket).ok_or(Refused::NoBucket)?;
        let newest = self.generation.saturating_sub(listing.stale);
        let mut page = Page::default();
        let mut last = String::new();
        for (key, object) in objects.range(listing.prefix.clone()..) {
            let Some(rest) = key.strip_prefix(&listing.prefix) else { break };
            let group = listing.delimiter.as_deref().and_then(|delimiter| {
                let end = rest.find(delimiter)? + delimiter.len();
                key.get(..listing.prefix.len() + end)
            });
            let name = group.unwrap_or(key);
            let seen = name <= listing.after.as_str() || (group.is_some() && name == last);
            if seen || object.generation > newest {
                continue;
            }
            if page.objects.len() + page.prefixes.len() >= listing.max {
                page.next = Some(last);
                break;
            }
            last = name.to_owned();
            match group {
                Some(group) => page.prefixes.push(group.to_owned()),
                None => page.objects.push((key.clone(), object.clone())),
            }
        }
        Ok(page)
    }
}
