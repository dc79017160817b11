//! How much memory this machine has.

use std::path::Path;

/// Bytes of memory that the machine has, or a control group around this process allows where that is less; `None`
/// where the system does not say. What others use at the moment is not taken off.
pub fn machine_memory() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let total = total(&read(Path::new("/proc/meminfo"))?)?;
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| limit(&read(Path::new(&file))?));
    Some(limits.fold(total, u64::min))
}

/// The total of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024).filter(|bytes| *bytes > 0)
}

/// The number in a limit's file; `max` is no limit, and neither is 0, with which nothing would run.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes > 0)
}

/// Files that may hold a limit on this process: of its own control group and of all above it, in the layout of
/// version 2 and in that of version 1. In a container the path may be the host's, and the root is the container's.
fn limit_files(cgroup: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            v1 if v1.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{name}"));
            let Some(at) = path.rfind('/') else { break };
            path = &path[..at];
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_and_limits_are_read() {
        assert_eq!(total("MemTotal:       24689392 kB\nMemFree: 1 kB\n"), Some(24_689_392 * 1024));
        for text in
            ["", "MemTotal:\n", "MemTotal: 0 kB\n", "MemTotal: 99999999999999999999 kB\n", "MemFree: 1 kB"]
        {
            assert_eq!(total(text), None, "{text}");
        }
        assert_eq!(limit("1000\n"), Some(1000));
        assert_eq!(limit("max\n"), None);
    }

    #[test]
    fn groups_are_found_in_both_versions() {
        let root = "/sys/fs/cgroup";
        assert_eq!(limit_files("0::/\n"), [format!("{root}/memory.max")]);
        assert_eq!(
            limit_files("0::/a/b\n"),
            ["/a/b", "/a", ""].map(|path| format!("{root}{path}/memory.max"))
        );
        assert_eq!(
            limit_files("9:name=systemd:/\n4:cpu,memory:/a\n"),
            ["/a", ""].map(|path| format!("{root}/memory{path}/memory.limit_in_bytes"))
        );
        assert!(limit_files("nonsense\n").is_empty());
    }
}
