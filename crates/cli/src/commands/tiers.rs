//! What the process that has the store alone keeps above its files.

use std::time::Duration;

use serde_json::{Value, json};
use tidelog::{TierOwner, TierStatistics, Tiers, WarmStatistics};

use crate::args::Globals;
use crate::commands::open;
use crate::error::Result;
use crate::output;
use crate::progress::{grouped, size};

const INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn tiers(globals: &Globals, watch: bool) -> Result<()> {
    let store = open(globals).await?;
    loop {
        let tiers = store.tiers_seen().await?;
        if globals.json {
            output::print_json(&document(&tiers))?;
        } else {
            output::print(&words(&tiers))?;
        }
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn words(tiers: &Tiers) -> String {
    let owner = match &tiers.owner {
        TierOwner::Nobody => {
            return "nobody has the store alone; all of it is in files\n".to_owned();
        }
        TierOwner::Dead(_) => {
            format!("{}; whoever writes next brings in what it left", tiers.owner)
        }
        owner => owner.to_string(),
    };
    match &tiers.statistics {
        Some(known) => {
            let warm = tiers.warm.as_ref().map(warm_table).unwrap_or_default();
            let age = tiers.age.as_millis();
            format!("{}{warm}{owner}, as of {age} ms ago\n", table(known))
        }
        None => format!("{owner}; its numbers are not to be seen here\n"),
    }
}

fn table(known: &TierStatistics) -> String {
    let header = [
        "tier",
        "rows",
        "versions",
        "size",
        "log ahead",
        "appends",
        "syncs",
        "appends/sync",
        "flushes",
        "waits",
        "memory",
    ];
    let row = vec![
        "hot".to_owned(),
        grouped(known.hot_rows),
        grouped(known.hot_versions),
        size(known.hot_bytes),
        size(known.wal_bytes),
        grouped(known.appends),
        grouped(known.syncs),
        known.appends_per_sync().map(|mean| format!("{mean:.1}")).unwrap_or_default(),
        grouped(known.flushes),
        grouped(known.waits),
        format!("{} of {}", size(known.memory_bytes), size(known.memory_bytes_max)),
    ];
    output::columns(Some(&header), &[row], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
}

fn warm_table(known: &WarmStatistics) -> String {
    let header = [
        "tier",
        "rows",
        "segments",
        "size",
        "of",
        "seals",
        "hits",
        "evictions",
        "dropped",
        "backend",
    ];
    let row = vec![
        "warm".to_owned(),
        grouped(known.rows),
        grouped(known.segments),
        size(known.used_bytes),
        size(known.budget_bytes),
        grouped(known.seals),
        grouped(known.hits),
        grouped(known.evictions),
        grouped(known.dropped),
        match known.device.is_empty() {
            true => known.backend.clone(),
            false => format!("{} ({})", known.backend, known.device),
        },
    ];
    let mut text = output::columns(Some(&header), &[row], &[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut say = |what: &str, why: Option<&str>| {
        if let Some(why) = why.filter(|why| !why.is_empty()) {
            text.push_str(&format!("{what}: {why}\n"));
        }
    };
    say("not warm", Some(&known.fallbacks_shown()));
    say("no device", known.no_device.as_deref());
    say("out of use", known.dead.as_deref());
    text
}

fn document(tiers: &Tiers) -> Value {
    let state = match tiers.owner {
        TierOwner::Nobody => "none",
        TierOwner::ThisHandle | TierOwner::Living(_) => "living",
        TierOwner::Dead(_) => "dead",
        _ => "unknown",
    };
    let owned = tiers.owner != TierOwner::Nobody;
    let numbers = tiers.statistics.map(|known| {
        json!({
            "tier": "hot",
            "rows": known.hot_rows,
            "versions": known.hot_versions,
            "bytes": known.hot_bytes,
            "wal_bytes": known.wal_bytes,
            "appends": known.appends,
            "appended_rows": known.appended_rows,
            "syncs": known.syncs,
            "appends_per_sync": known.appends_per_sync(),
            "flushes": known.flushes,
            "flushed_rows": known.flushed_rows,
            "waits": known.waits,
            "memory_bytes": known.memory_bytes,
            "memory_bytes_max": known.memory_bytes_max,
        })
    });
    let warm = tiers.warm.as_ref().map(|known| {
        json!({
            "tier": "warm",
            "backend": known.backend,
            "device": known.device,
            "rows": known.rows,
            "bytes": known.used_bytes,
            "bytes_max": known.budget_bytes,
            "segments": known.segments,
            "seals": known.seals,
            "hits": known.hits,
            "evictions": known.evictions,
            "dropped": known.dropped,
            "fallbacks": known.fallbacks,
            "no_device": known.no_device,
            "dead": known.dead,
        })
    });
    json!({
        "owner": owned.then(|| tiers.owner.to_string()),
        "owner_state": state,
        "tiers": numbers.into_iter().chain(warm).collect::<Vec<_>>(),
        "age_ms": tiers.as_of.map(|_| u64::try_from(tiers.age.as_millis()).unwrap_or(u64::MAX)),
    })
}
