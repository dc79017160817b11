//! How much memory can be had without swapping.

use std::path::Path;

/// What one control group says of itself.
#[derive(Debug, Clone, Default)]
struct Group {
    /// `memory.max` or `memory.limit_in_bytes`.
    limit: String,
    /// `memory.current` or `memory.usage_in_bytes`.
    usage: String,
    /// `memory.stat`.
    stat: String,
}

/// Bytes that can be had: the machine's, or a control group's where that is less; `None` where the system
/// does not say.
pub(super) fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let groups: Vec<Group> = group_folders(&read("/proc/self/cgroup").unwrap_or_default())
        .iter()
        .filter_map(|(folder, files)| {
            let read = |name: &str| std::fs::read_to_string(Path::new(folder).join(name)).ok();
            let [limit, usage] = files;
            Some(Group {
                limit: read(limit)?,
                usage: read(usage)?,
                stat: read("memory.stat").unwrap_or_default(),
            })
        })
        .collect();
    left(&read("/proc/meminfo")?, &groups)
}

/// Folders in which this process's control groups may be, each with the names of their limit and their
/// usage: its own group and all above it, in the layout of version 2 and in that of version 1.
///
/// In a container the path may be the host's, while the container's own group is the root.
fn group_folders(cgroup: &str) -> Vec<(String, [&'static str; 2])> {
    let mut folders = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, files) = match controllers {
            "" => ("/sys/fs/cgroup", ["memory.max", "memory.current"]),
            v1 if v1.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.usage_in_bytes"])
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            folders.push((format!("{root}{path}"), files));
            let Some(at) = path.rfind('/') else { break };
            path = &path[..at];
        }
    }
    folders
}

/// The least of what the machine and the groups have left. A group's usage counts the files that it has
/// read; those that nobody uses at the moment would be given back.
fn left(meminfo: &str, groups: &[Group]) -> Option<u64> {
    let machine = field(meminfo, "MemAvailable:")?.saturating_mul(1024);
    let of_group = |group: &Group| {
        // `max` is no limit.
        let limit: u64 = group.limit.trim().parse().ok()?;
        let usage: u64 = group.usage.trim().parse().ok()?;
        // Version 1 counts the groups below only in the `total_` fields; version 2 always counts them.
        let idle = field(&group.stat, "total_inactive_file").or_else(|| field(&group.stat, "inactive_file"));
        Some(limit.saturating_sub(usage.saturating_sub(idle.unwrap_or(0))))
    };
    Some(groups.iter().filter_map(of_group).fold(machine, u64::min))
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable:   1000 kB\n";

    fn group(limit: &str, usage: &str, stat: &str) -> Group {
        Group { limit: limit.to_owned(), usage: usage.to_owned(), stat: stat.to_owned() }
    }

    #[test]
    fn the_machine_or_the_tightest_group() {
        assert_eq!(left(MEMINFO, &[]), Some(1_024_000));
        assert_eq!(left("MemTotal: 4 kB\n", &[group("10\n", "1\n", "")]), None);
        // No limit, and the largest that version 1 can write.
        let open = [group("max\n", "5000\n", ""), group("9223372036854771712\n", "5000\n", "")];
        assert_eq!(left(MEMINFO, &open), Some(1_024_000));
        let tight = group("500000\n", "400000\n", "anon 100000\ninactive_file 250000\nactive_file 50000\n");
        assert_eq!(left(MEMINFO, &[tight.clone(), open[0].clone()]), Some(350_000));
        assert_eq!(left(MEMINFO, &[tight, group("300000", "100000", "")]), Some(200_000));
        // Never below nothing, and never more than the limit.
        assert_eq!(left(MEMINFO, &[group("500", "900", "inactive_file 100\n")]), Some(0));
        assert_eq!(left(MEMINFO, &[group("500", "300", "inactive_file 900\n")]), Some(500));
    }

    #[test]
    fn version_1_counts_the_groups_below() {
        let stat = "cache 9\ninactive_file 10\ntotal_inactive_file 3000\n";
        assert_eq!(left(MEMINFO, &[group("10000", "5000", stat)]), Some(8_000));
    }

    #[test]
    fn groups_are_found_in_both_versions() {
        let folders = |text| group_folders(text).into_iter().map(|(folder, _)| folder).collect::<Vec<_>>();
        assert_eq!(
            folders("0::/user/shell\n"),
            ["/sys/fs/cgroup/user/shell", "/sys/fs/cgroup/user", "/sys/fs/cgroup"]
        );
        assert_eq!(folders("0::/\n"), ["/sys/fs/cgroup"]);
        assert_eq!(
            folders("9:name=systemd:/\n4:cpu,memory:/a\n3:cpuset:/\n"),
            ["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]
        );
        assert!(folders("nonsense\n").is_empty());
    }

    #[test]
    fn this_machine_says() {
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
