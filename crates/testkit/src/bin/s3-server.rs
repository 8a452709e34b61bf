//! The test server of S3 as a process, for tests that are no Rust.
//!
//! `s3-server [--port PORT]` listens on 127.0.0.1 (port 0 stands for a free one), prints its
//! endpoint and the environment that a client needs as lines `NAME=value`, and serves until it is
//! killed.

use std::io::{self, Write};
use std::process::ExitCode;

use tidelog_testkit::TestS3;
use tidelog_testkit::s3::{ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Some(0),
        ["--port", port] => port.parse().ok(),
        _ => None,
    };
    let Some(port) = port else {
        drop(writeln!(io::stderr(), "usage: s3-server [--port PORT]"));
        return ExitCode::from(2);
    };
    match serve(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "s3-server: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(port: u16) -> io::Result<()> {
    let server = TestS3::start_on(port)?;
    let mut out = io::stdout().lock();
    writeln!(out, "AWS_ENDPOINT_URL={}", server.endpoint())?;
    writeln!(out, "AWS_ACCESS_KEY_ID={ACCESS_KEY_ID}")?;
    writeln!(out, "AWS_SECRET_ACCESS_KEY={SECRET_ACCESS_KEY}")?;
    writeln!(out, "BUCKET={BUCKET}")?;
    out.flush()?;
    drop(out);
    loop {
        std::thread::park();
    }
}
