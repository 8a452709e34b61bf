//! Compiles the kernels and the stand-in driver into a shared library, with the host's C compiler.
//!
//! There is no way around it: without a compiler the build fails, so that the suite is never skipped.

use std::env;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let (sources, kernels) = (here.join("c"), here.join("../kernels"));
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed={}", kernels.display());
    let library = PathBuf::from(env::var("OUT_DIR")?).join("libcuda-emulated.so");
    let mut compiler = cc::Build::new().opt_level(2).get_compiler().to_command();
    let status = compiler
        .args(["-std=gnu11", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"])
        .args(["-Wno-unknown-pragmas", "-fvisibility=hidden"])
        // Sums and what they lose have to be those of devices, bit by bit.
        .args(["-ffp-contract=off", "-fno-strict-aliasing", "-DTIDELOG_EMULATED"])
        .arg("-I")
        .arg(&sources)
        .arg("-I")
        .arg(&kernels)
        .arg(sources.join("machine.c"))
        .arg(sources.join("driver.c"))
        .args(["-lpthread", "-Wl,-soname,libcuda.so.1", "-o"])
        .arg(&library)
        .status()?;
    if !status.success() {
        return Err("the emulated driver does not compile; it needs a C compiler".into());
    }
    println!("cargo::rustc-env=TIDELOG_EMULATED_DRIVER={}", library.display());
    Ok(())
}
