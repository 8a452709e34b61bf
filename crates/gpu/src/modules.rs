//! The kernels, compiled beforehand, and which of them a device runs.

use cudarc::nvrtc::Ptx;

const MANIFEST: &str = include_str!("../kernels/built/manifest.txt");
const MODULES: &[u8] = include_bytes!("../kernels/built/modules.bin");

/// A compiled module of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Module<'a> {
    target: &'a str,
    /// Machine code; otherwise a text that the driver compiles.
    is_machine_code: bool,
    /// Of devices that it is made for, as 90 for 9.0.
    capability: u32,
    offset: usize,
    length: usize,
    raw_length: usize,
}

/// The module for devices of a compute capability, or why there is none.
///
/// Machine code runs on devices of the same major version and the same or a later minor one. Where there
/// is none, the driver compiles the text, which takes it a second or more once.
pub(crate) fn module_for(capability: (u32, u32)) -> Result<Ptx, String> {
    let Some(module) = pick(&modules(MANIFEST)?, capability) else {
        let (major, minor) = capability;
        return Err(format!("no kernels for compute capability {major}.{minor}"));
    };
    let packed = MODULES.get(module.offset..module.offset + module.length);
    let packed = packed.ok_or("the kernels' archive is shorter than its manifest says")?;
    let raw = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(packed, module.raw_length)
        .map_err(|error| format!("kernels for {} do not unpack: {error}", module.target))?;
    Ok(if module.is_machine_code {
        Ptx::from_binary(raw)
    } else {
        let text = String::from_utf8_lossy(&raw);
        Ptx::from_src(text.trim_end_matches('\0'))
    })
}

fn modules(manifest: &str) -> Result<Vec<Module<'_>>, String> {
    let lines = manifest.lines().filter(|line| !line.starts_with("sources "));
    lines.map(|line| parse(line).ok_or_else(|| format!("a manifest line reads {line:?}"))).collect()
}

fn parse(line: &str) -> Option<Module<'_>> {
    let mut words = line.split(' ');
    let target = words.next()?;
    let is_machine_code = words.next()? == "cubin";
    let mut number = || words.next()?.parse().ok();
    let (offset, length, raw_length) = (number()?, number()?, number()?);
    let capability = target.split_once('_')?.1.parse().ok()?;
    Some(Module { target, is_machine_code, capability, offset, length, raw_length })
}

fn pick<'a>(modules: &[Module<'a>], (major, minor): (u32, u32)) -> Option<Module<'a>> {
    let device = major * 10 + minor;
    let runs = |module: &&Module<'a>| {
        let same_major = module.capability / 10 == major;
        module.capability <= device && (same_major || !module.is_machine_code)
    };
    modules
        .iter()
        .filter(runs)
        .max_by_key(|module| (module.is_machine_code, module.capability))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_the_newest_code_of_its_major_version_else_the_text() {
        let modules = modules(MANIFEST).unwrap();
        let target = |capability| pick(&modules, capability).map(|module| module.target);
        assert_eq!(target((9, 0)), Some("sm_90"));
        assert_eq!(target((8, 7)), Some("sm_86"));
        assert_eq!(target((7, 5)), Some("sm_75"));
        assert_eq!(target((12, 1)), Some("sm_120"));
        assert_eq!(target((11, 0)), Some("compute_75"));
        assert_eq!(target((7, 0)), None);
    }

    #[test]
    fn every_module_unpacks_and_has_the_kernels() {
        for module in modules(MANIFEST).unwrap() {
            let packed = &MODULES[module.offset..module.offset + module.length];
            let raw = miniz_oxide::inflate::decompress_to_vec_zlib(packed).unwrap();
            assert_eq!(raw.len(), module.raw_length, "{}", module.target);
            assert_eq!(raw.starts_with(b"\x7fELF"), module.is_machine_code);
            for (kernel, _) in crate::abi::KERNELS {
                let found = raw.windows(kernel.len()).any(|part| part == kernel.as_bytes());
                assert!(found, "{} has no {kernel}", module.target);
            }
        }
    }

    #[test]
    fn a_manifest_that_is_damaged_is_refused() {
        assert!(modules("sm_90 cubin 0 1").is_err());
        assert!(modules("sm90 cubin 0 1 2 3 4").is_err());
    }
}
