//! Where machine code that the driver made of PTX is kept, so that it is made once.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The file for some PTX, a driver and a capability; none where the user has no folder for such things.
pub(super) fn file(ptx: &str, version: i32, capability: (u32, u32)) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name);
    Some(folder(variable)?.join(name(ptx, version, capability)))
}

fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // As the base directory specification has it, a path that is not absolute does not count.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("nemort"))
}

fn name(ptx: &str, version: i32, (major, minor): (u32, u32)) -> String {
    format!("{}-{version}-sm_{major}{minor}.cubin", blake3::hash(ptx.as_bytes()).to_hex())
}

/// Keeps machine code, if that can be: where it cannot, the next start compiles again.
pub(super) fn keep(file: &Path, cubin: &[u8]) {
    let folder = file.parent().map(std::fs::create_dir_all);
    if matches!(folder, Some(Ok(()))) {
        let _ = nemo_ir::artifact::write_whole(file, cubin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_folder_or_none() {
        let of = |cache: &str, home: &str| {
            folder(|name| {
                let value = if name == "HOME" { home } else { cache };
                (!value.is_empty()).then(|| value.into())
            })
        };
        assert_eq!(of("/c", "/h"), Some(PathBuf::from("/c/nemort")));
        assert_eq!(of("", "/h"), Some(PathBuf::from("/h/.cache/nemort")));
        assert_eq!(of("relative", "/h"), Some(PathBuf::from("/h/.cache/nemort")));
        assert_eq!(of("", ""), None);
    }

    #[test]
    fn names_tell_text_driver_and_gpu_apart() {
        let one = name("a", 12_020, (8, 6));
        assert!(one.ends_with("-12020-sm_86.cubin"), "{one}");
        for other in [name("b", 12_020, (8, 6)), name("a", 12_040, (8, 6)), name("a", 12_020, (9, 0))] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn what_cannot_be_kept_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new").join("x.cubin");
        keep(&file, b"code");
        assert_eq!(std::fs::read(&file).unwrap(), b"code");
        // A file where the folder should be.
        let below = file.join("y.cubin");
        keep(&below, b"code");
        assert!(!below.exists());
    }
}
