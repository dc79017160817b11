//! The special registers.

/// A special register whose value a thread keeps for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    WarpSize,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    DynamicShared,
    TotalShared,
    /// Everything that is 0 where there is one processor and no cluster.
    Zero,
    /// Everything that is 1 there.
    One,
    /// Counts instructions of the warp, so it is no constant.
    Clock,
    Clock64,
}

/// The special register of a name.
pub(crate) fn special(name: &str) -> Option<Special> {
    let dim = |suffix: &str| match suffix {
        ".x" => Some(0),
        ".y" => Some(1),
        ".z" => Some(2),
        _ => None,
    };
    if let Some(suffix) = name.strip_prefix("%tid") {
        return dim(suffix).map(Special::Tid);
    }
    if let Some(suffix) = name.strip_prefix("%ntid") {
        return dim(suffix).map(Special::Ntid);
    }
    if let Some(suffix) = name.strip_prefix("%ctaid").or(name.strip_prefix("%clusterid")) {
        return dim(suffix).map(Special::Ctaid);
    }
    if let Some(suffix) = name.strip_prefix("%nctaid").or(name.strip_prefix("%nclusterid")) {
        return dim(suffix).map(Special::Nctaid);
    }
    if let Some(suffix) = name.strip_prefix("%cluster_ctaid") {
        return dim(suffix).map(|_| Special::Zero);
    }
    if let Some(suffix) = name.strip_prefix("%cluster_nctaid") {
        return dim(suffix).map(|_| Special::One);
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NWarpId,
        "WARP_SZ" => Special::WarpSize,
        "%lanemask_eq" => Special::LaneMaskEq,
        "%lanemask_le" => Special::LaneMaskLe,
        "%lanemask_lt" => Special::LaneMaskLt,
        "%lanemask_ge" => Special::LaneMaskGe,
        "%lanemask_gt" => Special::LaneMaskGt,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "%smid" | "%gridid" | "%cluster_ctarank" => Special::Zero,
        "%nsmid" | "%cluster_nctarank" => Special::One,
        "%clock" | "%clock_hi" | "%globaltimer_lo" => Special::Clock,
        "%clock64" | "%globaltimer" => Special::Clock64,
        _ => return None,
    })
}
