//! What is checked of segments: what they say of themselves, and that they go when they have to.

use super::oracle;
use super::requests::Maker;
use super::setting::{Setting, text};
use super::world::World;
use super::{Failure, Outcome, arrays};
use crate::answer::{Answer, Output};
use crate::backend::WarmBackend;
use crate::error::WarmError;
use crate::request::{Op, Request};
use crate::value::Value;

/// Whether segments know rows, times, nulls, least and greatest values exactly.
pub(super) fn statistics(
    backend: &dyn WarmBackend,
    world: &World,
    _seed: u64,
) -> Result<Outcome, Failure> {
    let used = backend.stats().used_bytes;
    let setting = Setting::new(backend, world)?;
    for (segment, rows) in setting.segments.iter().zip(&setting.oracle.segments) {
        let stats = segment.stats();
        expect("rows", &stats.rows, &rows.len())?;
        let times = rows.iter().map(|row| row.time);
        expect("times", &stats.time, &times.clone().min().zip(times.max()))?;
        for (column, stats) in stats.columns.iter().enumerate() {
            let name = setting.oracle.schema.field(column).name();
            let Some(stats) = stats else {
                expect("column left out", &name.as_str(), &"decimal")?;
                continue;
            };
            let cells = rows.iter().map(|row| &row.cells[column]);
            let values: Vec<_> = cells.filter(|cell| **cell != Value::Null).collect();
            expect(name, &stats.null_count, &(rows.len() - values.len()))?;
            expect(name, &stats.has_nan, &values.iter().any(|value| oracle::is_nan(value)))?;
            let least = values.iter().copied().min_by(oracle::order);
            let greatest = values.iter().copied().max_by(oracle::order);
            let text = arrays::is_text(&setting.data_type(column));
            let ends = least.cloned().zip(greatest.cloned());
            expect(name, &stats.min_max(), &ends.filter(|_| !stats.has_nan && !text))?;
        }
    }
    let bytes: u64 = setting.segments.iter().map(|segment| segment.stats().bytes).sum();
    expect("bytes in use", &backend.stats().used_bytes, &(used + bytes))?;
    drop(setting);
    expect("bytes in use after dropping", &backend.stats().used_bytes, &used)?;
    Ok(Outcome::Answered)
}

/// Whether what was evicted is told, gives its bytes back, and counts add up.
pub(super) fn eviction(
    backend: &dyn WarmBackend,
    world: &World,
    _seed: u64,
) -> Result<Outcome, Failure> {
    let setting = Setting::new(backend, world)?;
    let before = backend.stats();
    let Some(segment) = setting.segments.last() else {
        return Ok(Outcome::Answered);
    };
    expect("evicted", &backend.evict(segment), &true)?;
    expect("evicted twice", &backend.evict(segment), &false)?;
    let after = backend.stats();
    expect("bytes in use", &after.used_bytes, &(before.used_bytes - segment.stats().bytes))?;
    expect("segments", &after.segments, &(before.segments - 1))?;
    expect("rows", &after.rows, &(before.rows - segment.rows() as u64))?;
    expect("evictions", &after.evictions, &(before.evictions + 1))?;
    match setting.run(&Request::new(Op::Count)) {
        Err(WarmError::Evicted { segment: found }) if found == segment.id() => {}
        outcome => return Err(format!("after eviction: {outcome:?}")),
    }
    let rest = &setting.segments[..setting.segments.len() - 1];
    let rows: usize = rest.iter().map(|segment| segment.rows()).sum();
    match backend.run(&setting.table, rest, &Request::new(Op::Count)) {
        Ok(Answer { output: Output::Count(found), .. }) if found == rows as u64 => {}
        outcome => return Err(format!("{outcome:?}, expected {rows} rows")),
    }
    let last = backend.stats();
    expect("hits", &last.hits, &(before.hits + 1))?;
    let evicted =
        |stats: &crate::BackendStats| stats.fallbacks.get("evicted").copied().unwrap_or(0);
    expect("fallbacks", &evicted(&last), &(evicted(&before) + 1))?;
    Ok(Outcome::Answered)
}

/// Whether requests that race each other, seals and evictions are answered exactly, or told that a
/// segment is gone.
pub(super) fn races(
    backend: &dyn WarmBackend,
    world: &World,
    seed: u64,
) -> Result<Outcome, Failure> {
    let used = backend.stats().used_bytes;
    let setting = Setting::new(backend, world)?;
    let request = setting.maker(world, seed).request(Op::Count);
    let filter = request.filter.as_ref();
    if filter.is_some_and(|filter| setting.oracle.refuses_predicate(filter)) {
        return Ok(Outcome::Refused);
    }
    let expected = setting.oracle.matching(&request).len() as u64;
    let ask = || {
        for _ in 0..4 {
            match setting.run(&request) {
                Ok(Answer { output: Output::Count(found), .. }) if found == expected => {}
                Err(WarmError::Evicted { .. }) => {}
                outcome => return Err(format!("{outcome:?}, expected {expected}\n{request:#?}")),
            }
        }
        Ok(())
    };
    let seal = || {
        let rows = world.segments();
        let batches = rows.first().map(|rows| world.batches(rows)).unwrap_or_default();
        backend.seal(&setting.table, &batches).map(|_| ()).map_err(text)
    };
    std::thread::scope(|scope| {
        let others = [scope.spawn(ask), scope.spawn(ask), scope.spawn(seal)];
        let mut outcomes = vec![ask()];
        for segment in &setting.segments {
            backend.evict(segment);
        }
        let joined = others
            .map(|other| other.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())));
        outcomes.extend(joined);
        outcomes.into_iter().collect::<Result<(), _>>()
    })?;
    expect("bytes in use after all", &backend.stats().used_bytes, &used)?;
    Ok(if expected == 0 { Outcome::Empty } else { Outcome::Answered })
}

/// Whether a request that nobody waits for any more ends.
pub(super) fn cancel(
    backend: &dyn WarmBackend,
    world: &World,
    seed: u64,
) -> Result<Outcome, Failure> {
    let setting = Setting::new(backend, world)?;
    let mut maker = setting.maker(world, seed);
    let ops = [maker.fetch(), maker.last_per_key(), maker.aggregate(), maker.top_k(), Op::Count];
    for op in ops {
        let request = Request::new(op).with_cancel(Maker::set_flag());
        match setting.run(&request) {
            Err(WarmError::Cancelled) if !setting.segments.is_empty() => {}
            // Nothing to look at, or refused before looking.
            Ok(_) if setting.segments.is_empty() => {}
            Err(WarmError::Unsupported { .. } | WarmError::Invalid { .. }) => {}
            outcome => return Err(format!("cancelled: {outcome:?}\n{request:#?}")),
        }
    }
    Ok(Outcome::Answered)
}

fn expect<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, expected {expected:?}"))
}
