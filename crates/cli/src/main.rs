//! The `tidelog` program: a store of versioned time series from the command line.
//!
//! ```text
//! args      what can be typed
//! commands  one file for each group of commands
//! input     CSV and Parquet files → record batches
//! output    record batches → tables, CSV, JSON, Parquet, Arrow; files that appear whole
//! drawing   how a series lies in files, as text, SVG, HTML
//! demo      the main job on real data, narrated
//! settings  flags, environment and files → the library's settings
//! error     what went wrong → message, JSON, exit code
//! ```
//!
//! Results go to stdout; errors, progress and traces to stderr, so that a pipe carries only data.

mod args;
mod commands;
mod demo;
mod drawing;
mod error;
mod input;
mod output;
mod progress;
mod settings;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::error::Error;

/// Queries and writers allocate much, on many threads at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Stack of the runtime's threads: deeply nested SQL is planned by recursion.
const THREAD_STACK_BYTES: usize = 8 * 1024 * 1024;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_tracing(cli.globals.verbose);
    input::silence_decoder_panics();
    let json = cli.globals.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(json),
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .build()
        .map_err(|source| Error::Runtime { source })?;
    let writes = cli.command.writes();
    let result = runtime.block_on(async {
        tokio::select! {
            result = Box::pin(commands::run(cli)) => result,
            Ok(()) = tokio::signal::ctrl_c() => Err(Error::Interrupted { writing: writes }),
        }
    });
    // A thread may be waiting for input that never comes; nothing is left that it could do.
    runtime.shutdown_background();
    result
}

/// Traces go to stderr: by `--verbose`, or as `RUST_LOG` says.
fn start_tracing(verbose: bool) {
    let filter = match (EnvFilter::try_from_default_env(), verbose) {
        (Ok(filter), _) => filter,
        (Err(_), true) => EnvFilter::new("warn,tidelog=debug"),
        (Err(_), false) => return,
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
