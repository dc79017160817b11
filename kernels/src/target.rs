//! What a target is: a name, the CPU features that code for it may use, and the facts that
//! generators and planners ask for.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

/// A CPU target: a level of x86-64 with features on top.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct HostTarget {
    level: Level,
    extras: Vec<Feature>,
}

/// A microarchitecture level of the x86-64 psABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Level {
    /// AVX2, FMA, F16C, BMI.
    #[serde(rename = "x86-64-v3")]
    V3,
    /// AVX-512 F, BW, CD, DQ, VL.
    #[serde(rename = "x86-64-v4")]
    V4,
}

/// A feature that may be appended to a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// Dot products of bf16 pairs into f32.
    Avx512Bf16,
    /// Dot products of bytes into i32.
    Avx512Vnni,
}

impl Level {
    const ALL: [Self; 2] = [Self::V3, Self::V4];

    /// The name that both LLVM and the psABI use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
        }
    }

    /// The features that the level stands for, as std's feature detection spells them.
    pub const fn features(self) -> &'static [&'static str] {
        match self {
            Self::V3 => &["avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe"],
            Self::V4 => &[
                "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "avx512f", "avx512bw", "avx512cd",
                "avx512dq", "avx512vl",
            ],
        }
    }
}

impl Feature {
    const ALL: [Self; 2] = [Self::Avx512Bf16, Self::Avx512Vnni];

    /// The spelling that target names, LLVM and std's feature detection share.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512Bf16 => "avx512bf16",
            Self::Avx512Vnni => "avx512vnni",
        }
    }
}

/// Why a target name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    /// No such target.
    #[error(
        "there is no target `{name}`; there are x86-64-v3, x86-64-v4 (with +avx512bf16 or +avx512vnni) and host for CPUs, \
         sm_86 and sm_90 for GPUs"
    )]
    Unknown {
        /// The name as written.
        name: String,
    },
    /// A feature on a level that lacks its base.
    #[error("`{feature}` needs x86-64-v4, but target `{name}` asks for it on {level}")]
    FeatureWithoutLevel {
        /// The name as written.
        name: String,
        /// The feature.
        feature: &'static str,
        /// The level.
        level: &'static str,
    },
    /// `host` on a machine below the lowest level.
    #[error("this machine's CPU lacks `{missing}`, which x86-64-v3, the lowest CPU target, needs")]
    HostTooOld {
        /// The first feature that is missing.
        missing: &'static str,
    },
}

/// A compilation target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A CPU.
    Host(HostTarget),
    /// An NVIDIA GPU.
    Gpu(Sm),
}

/// A compute capability that kernels are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sm {
    /// A10G and other Ampere cards of compute capability 8.6.
    Sm86,
    /// H100 and H200.
    Sm90,
}

impl Sm {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Sm86, Self::Sm90];

    /// Multiprocessors of the smallest card of it that is reckoned with: A10G, H100.
    pub const fn multiprocessors(self) -> u64 {
        match self {
            Self::Sm86 => 80,
            Self::Sm90 => 132,
        }
    }

    /// Bytes of shared memory that a CTA may have.
    pub const fn shared_bytes(self) -> u32 {
        match self {
            Self::Sm86 => 99 << 10,
            Self::Sm90 => 227 << 10,
        }
    }

    /// 32-bit registers of a multiprocessor.
    pub const REGISTERS: u32 = 65_536;

    /// Bytes of shared memory that the CTAs of a multiprocessor have together.
    pub const fn shared_of_all(self) -> u32 {
        match self {
            Self::Sm86 => 100 << 10,
            Self::Sm90 => 228 << 10,
        }
    }

    /// Threads that a multiprocessor holds at once.
    pub const fn threads(self) -> u32 {
        match self {
            Self::Sm86 => 1536,
            Self::Sm90 => 2048,
        }
    }

    /// CTAs that a multiprocessor holds at once.
    pub const fn ctas(self) -> u32 {
        match self {
            Self::Sm86 => 16,
            Self::Sm90 => 32,
        }
    }

    /// The name that NVIDIA gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sm86 => "sm_86",
            Self::Sm90 => "sm_90",
        }
    }
}

impl Target {
    /// Reads a target name; `host` becomes what this machine has.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn parse(name: &str) -> Result<Self, TargetError> {
        match Sm::ALL.into_iter().find(|sm| sm.name() == name) {
            Some(sm) => Ok(Self::Gpu(sm)),
            None => HostTarget::parse(name).map(Self::Host),
        }
    }
}

impl From<HostTarget> for Target {
    fn from(target: HostTarget) -> Self {
        Self::Host(target)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(target) => write!(f, "{target}"),
            Self::Gpu(sm) => f.write_str(sm.name()),
        }
    }
}

impl HostTarget {
    /// Reads a target name; `host` becomes what this machine has.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn parse(name: &str) -> Result<Self, TargetError> {
        if name == "host" {
            return Self::detect();
        }
        let unknown = || TargetError::Unknown { name: name.to_owned() };
        let mut words = name.split('+');
        let level_name = words.next().unwrap_or_default();
        let level = Level::ALL.into_iter().find(|level| level.name() == level_name).ok_or_else(unknown)?;
        let mut extras = Vec::new();
        for word in words {
            let feature = Feature::ALL.into_iter().find(|f| f.name() == word).ok_or_else(unknown)?;
            if level < Level::V4 {
                let (feature, level) = (feature.name(), level.name());
                return Err(TargetError::FeatureWithoutLevel { name: name.to_owned(), feature, level });
            }
            extras.push(feature);
        }
        extras.sort_unstable();
        extras.dedup();
        Ok(Self { level, extras })
    }

    /// What this machine has.
    ///
    /// # Errors
    /// [`TargetError::HostTooOld`].
    pub fn detect() -> Result<Self, TargetError> {
        if let Some(missing) = Level::V3.features().iter().find(|name| !detected(name)) {
            return Err(TargetError::HostTooOld { missing });
        }
        if Level::V4.features().iter().any(|name| !detected(name)) {
            return Ok(Self { level: Level::V3, extras: Vec::new() });
        }
        let extras = Feature::ALL.into_iter().filter(|feature| detected(feature.name())).collect();
        Ok(Self { level: Level::V4, extras })
    }

    /// The level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Whether code may use `feature`.
    pub fn has(&self, feature: Feature) -> bool {
        self.extras.contains(&feature)
    }

    /// Every feature that code for this target may use, as std's feature detection spells them.
    pub fn cpu_features(&self) -> Vec<String> {
        let extras = self.extras.iter().map(|feature| feature.name());
        self.level.features().iter().copied().chain(extras).map(str::to_owned).collect()
    }

    /// f32 lanes of a vector register.
    pub fn lanes(&self) -> u32 {
        match self.level {
            Level::V3 => 8,
            Level::V4 => 16,
        }
    }
}

impl fmt::Display for HostTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.level.name())?;
        for feature in &self.extras {
            write!(f, "+{}", feature.name())?;
        }
        Ok(())
    }
}

#[cfg(target_arch = "x86_64")]
fn detected(name: &str) -> bool {
    macro_rules! by_name {
        ($($feature:tt)*) => {
            match name { $($feature => std::arch::is_x86_feature_detected!($feature),)* _ => false }
        };
    }
    by_name!("avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe" "avx512f" "avx512bw" "avx512cd" "avx512dq"
             "avx512vl" "avx512bf16" "avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn detected(_name: &str) -> bool {
    false
}
