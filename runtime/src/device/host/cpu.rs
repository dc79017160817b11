//! Which of an artifact's CPU features this machine has.

/// Whether the CPU has the feature that std calls `name`; a name that std does not know, it has not.
pub fn has_feature(name: &str) -> bool {
    macro_rules! detect {
        ($($feature:tt),* $(,)?) => {
            match name {
                $($feature => is_x86_feature_detected!($feature),)*
                _ => false,
            }
        };
    }
    detect!(
        "sse",
        "sse2",
        "sse3",
        "ssse3",
        "sse4.1",
        "sse4.2",
        "popcnt",
        "avx",
        "avx2",
        "bmi1",
        "bmi2",
        "f16c",
        "fma",
        "lzcnt",
        "movbe",
        "xsave",
        "avx512f",
        "avx512cd",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512bf16",
        "avx512fp16",
        "avx512ifma",
        "avx512vbmi",
        "avx512vbmi2",
        "avx512vnni",
        "avx512bitalg",
        "avx512vpopcntdq",
        "avx512vp2intersect",
        "avxvnni",
        "avxvnniint8",
        "avxifma",
        "gfni",
        "vaes",
        "vpclmulqdq",
    )
}

/// The features that this CPU lacks.
pub fn missing(features: &[String]) -> Vec<&str> {
    features.iter().map(String::as_str).filter(|feature| !has_feature(feature)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown() {
        // Every x86-64 has it.
        assert!(has_feature("sse2"));
        let wanted = ["sse2".to_owned(), "avx9000".to_owned()];
        assert_eq!(missing(&wanted), ["avx9000"]);
    }
}
