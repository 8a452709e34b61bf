//! How far the rows have come, and what they take: a live line, or lines where nobody watches.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tidelog::Store;

use crate::progress::{grouped, size};

/// A new look at the memory of the process at most this often.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Lines come this often where they are not drawn over one another.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// Watches rows being appended.
pub(super) struct Watch {
    bar: ProgressBar,
    /// Whether lines are written instead of drawn.
    plain: bool,
    began: Instant,
    looked: Instant,
    told: Instant,
    system: System,
    resident: u64,
    pub(super) resident_peak: u64,
}

impl Watch {
    pub(super) fn new(rows: u64) -> Self {
        let bar = ProgressBar::new(rows);
        let template =
            "{bar:24} {human_pos} of {human_len} rows  {per_sec}  {eta} left  {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let now = Instant::now();
        let plain = !std::io::stderr().is_terminal();
        let mut watch = Self {
            bar,
            plain,
            began: now,
            looked: now,
            told: now,
            system: System::new(),
            resident: 0,
            resident_peak: 0,
        };
        watch.look();
        watch
    }

    /// So many more rows were appended to `store`.
    pub(super) fn appended(&mut self, rows: u64, store: &Store) {
        self.bar.inc(rows);
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.look();
        let tiers = self.tiers(store);
        if !self.plain {
            self.bar.set_message(tiers);
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
            let per_second = done as f64 / self.began.elapsed().as_secs_f64();
            let left = Duration::from_secs_f64(all.saturating_sub(done) as f64 / per_second);
            // Where stderr cannot be written the rows are appended all the same.
            drop(writeln!(
                std::io::stderr(),
                "{} of {} rows  {per_second:.0}/s  {} left  {tiers}",
                grouped(done),
                grouped(all),
                HumanDuration(left)
            ));
        }
    }

    /// Rows in each tier, and memory.
    fn tiers(&self, store: &Store) -> String {
        let tiers = store.tiers().unwrap_or_default();
        let in_files = tiers.appended_rows.saturating_sub(tiers.hot_rows);
        let memory = store.memory();
        format!(
            "hot {}  files {}  log ahead {}  memory {} ({} of {} counted)",
            grouped(tiers.hot_rows),
            grouped(in_files),
            size(tiers.wal_bytes),
            size(self.resident),
            size(memory.held()),
            size(memory.limit()),
        )
    }

    /// Looks at how much memory the process has.
    pub(super) fn look(&mut self) {
        self.looked = Instant::now();
        let pid = Pid::from_u32(std::process::id());
        let (only, memory) = ([pid], ProcessRefreshKind::nothing().with_memory());
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&only), false, memory);
        self.resident = self.system.process(pid).map_or(0, sysinfo::Process::memory);
        self.resident_peak = self.resident_peak.max(self.resident);
    }

    /// All rows are appended; how long that took.
    pub(super) fn finish(&mut self) -> Duration {
        self.look();
        self.bar.finish_and_clear();
        self.began.elapsed()
    }
}
