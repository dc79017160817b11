//! The header of a safetensors file: little-endian length, JSON, then the tensors' bytes.
//!
//! Everything a header says is checked against the file before a byte of data is believed.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use thiserror::Error;

/// No published header comes near it.
const MAX_HEADER: u64 = 100 << 20;

/// How the file begins that stands for a large one in a repository.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// Key of the free-form metadata.
const METADATA: &str = "__metadata__";

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Name in the checkpoint.
    pub name: String,
    /// Dtype as the file spells it (`BF16`).
    pub dtype: String,
    /// Shape.
    pub shape: Vec<u64>,
    /// Bytes in the file.
    pub range: Range<usize>,
}

/// What is wrong with a header; the caller knows the file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// No byte at all.
    #[error("it is empty")]
    Empty,
    /// What Git leaves in place of a large file that it did not fetch.
    #[error("it is a Git LFS pointer, not the tensors: run `git lfs pull`")]
    LfsPointer,
    /// What PyTorch's own files are.
    #[error("it is a zip archive, as PyTorch writes its own files, and not safetensors")]
    Zip,
    /// Fewer bytes than the header alone.
    #[error("it is truncated: its header wants {wanted} bytes and the file has {has}")]
    Truncated {
        /// Bytes of the file.
        has: u64,
        /// Bytes up to the end of the header.
        wanted: u64,
    },
    /// Something that is no header at all.
    #[error("it is not a safetensors file: {0}")]
    NotSafetensors(String),
    /// A name given twice.
    #[error("tensor `{0}` is there twice")]
    Duplicate(String),
    /// Offsets that are out of order.
    #[error("tensor `{name}` has bytes {begin}..{end}, which end before they begin")]
    Backwards {
        /// The tensor.
        name: String,
        /// First byte.
        begin: u64,
        /// One past the last.
        end: u64,
    },
    /// Fewer bytes than the header promises.
    #[error(
        "it is truncated: tensor `{name}` has bytes {begin}..{end}, but the file has {has} bytes of data"
    )]
    OutOfFile {
        /// The tensor.
        name: String,
        /// First byte.
        begin: u64,
        /// One past the last.
        end: u64,
        /// Bytes of data.
        has: u64,
    },
    /// A size that its shape does not give.
    #[error("tensor `{name}` has {has} bytes, but {dtype}{shape:?} takes {wanted}")]
    Size {
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Bytes that its offsets give.
        has: u64,
        /// Bytes that its type takes.
        wanted: u128,
    },
    /// Two tensors in one place.
    #[error("tensors `{0}` and `{1}` overlap")]
    Overlap(String, String),
    /// Bytes that no tensor accounts for.
    #[error("no tensor has {} of its data, from byte {from}", bytes(*count))]
    Unclaimed {
        /// First of them.
        from: u64,
        /// How many.
        count: u64,
    },
    /// Bytes after the data.
    #[error("the file has {} after its last tensor", bytes(*.0))]
    Trailing(u64),
}

fn bytes(count: u64) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The entries in the file's order; a map would silently drop names given twice.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensor names to dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Bytes of one element, for the dtypes whose elements are whole bytes.
fn dtype_bytes(dtype: &str) -> Option<u64> {
    match dtype {
        "F64" | "I64" | "U64" | "C64" => Some(8),
        "F32" | "I32" | "U32" => Some(4),
        "F16" | "BF16" | "I16" | "U16" => Some(2),
        "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "I8" | "U8" | "BOOL" => Some(1),
        _ => None,
    }
}

/// The tensors of a file, in the order of their data.
///
/// # Errors
/// [`HeaderError`] when the file is truncated, has bytes to spare, or contradicts itself.
pub fn parse(file: &[u8]) -> Result<Vec<Tensor>, HeaderError> {
    match file {
        [] => return Err(HeaderError::Empty),
        [b'P', b'K', 3, 4, ..] => return Err(HeaderError::Zip),
        file if file.starts_with(LFS_POINTER) => return Err(HeaderError::LfsPointer),
        _ => {}
    }
    let truncated = |wanted| HeaderError::Truncated { has: file.len() as u64, wanted };
    let Some((length, rest)) = file.split_first_chunk::<8>() else { return Err(truncated(8)) };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(HeaderError::NotSafetensors(format!("its header would be {length} bytes long")));
    }
    let json = rest.get(..length as usize).ok_or_else(|| truncated(8 + length))?;
    let data_start = 8 + length as usize;
    let data = rest.len() as u64 - length;
    let Entries(entries) =
        serde_json::from_slice(json).map_err(|error| HeaderError::NotSafetensors(error.to_string()))?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, Entry { dtype, shape, data_offsets: [begin, end] }) in entries {
        if begin > end {
            return Err(HeaderError::Backwards { name, begin, end });
        }
        if end > data {
            return Err(HeaderError::OutOfFile { name, begin, end, has: data });
        }
        if let Some(bytes) = dtype_bytes(&dtype) {
            let wanted =
                shape.iter().try_fold(u128::from(bytes), |n, extent| n.checked_mul(u128::from(*extent)));
            let wanted = wanted.unwrap_or(u128::MAX);
            if wanted != u128::from(end - begin) {
                return Err(HeaderError::Size { name, dtype, shape, has: end - begin, wanted });
            }
        }
        let range = data_start + begin as usize..data_start + end as usize;
        tensors.push(Tensor { name, dtype, shape, range });
    }
    check_names(&tensors)?;
    tensors.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    check_layout(&tensors, data_start, file.len())?;
    Ok(tensors)
}

fn check_names(tensors: &[Tensor]) -> Result<(), HeaderError> {
    let mut names: Vec<_> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(HeaderError::Duplicate(pair[0].to_owned())),
        None => Ok(()),
    }
}

/// The tensors, sorted, cover the data without overlaps or holes.
fn check_layout(tensors: &[Tensor], data_start: usize, end: usize) -> Result<(), HeaderError> {
    let mut at = data_start;
    let mut last = "";
    for tensor in tensors {
        if tensor.range.start < at {
            return Err(HeaderError::Overlap(last.to_owned(), tensor.name.clone()));
        }
        unclaimed(data_start, at, tensor.range.start)?;
        at = tensor.range.end;
        last = &tensor.name;
    }
    match end - at {
        0 => Ok(()),
        count => Err(HeaderError::Trailing(count as u64)),
    }
}

fn unclaimed(data_start: usize, at: usize, until: usize) -> Result<(), HeaderError> {
    if at == until {
        return Ok(());
    }
    Err(HeaderError::Unclaimed { from: (at - data_start) as u64, count: (until - at) as u64 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn message(json: &str, data: usize) -> String {
        parse(&file(json, data)).unwrap_err().to_string()
    }

    #[test]
    fn tensors_come_in_the_order_of_their_data() {
        let json = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[3,11]},"__metadata__":{"format":"pt"},
                       "a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
        let tensors = parse(&file(json, 11)).unwrap();
        assert_eq!(tensors.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(tensors[1].range, json.len() + 11..json.len() + 19);
    }

    #[test]
    fn every_fault_has_its_sentence() {
        let one = |offsets: &str| format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{offsets}}}}}"#);
        assert_eq!(
            message(&one("[0,4]"), 3),
            "it is truncated: tensor `a` has bytes 0..4, but the file has 3 bytes of data"
        );
        assert!(message(&one("[4,0]"), 4).contains("tensor `a` has bytes 4..0, which end before"));
        assert!(message(&one("[0,3]"), 3).contains("tensor `a` has 3 bytes, but U8[4] takes 4"));
        assert_eq!(message(&one("[0,4]"), 6), "the file has 2 bytes after its last tensor");
        assert_eq!(message(&one("[1,5]"), 5), "no tensor has 1 byte of its data, from byte 0");
        let two = |second: &str| {
            format!(
                r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},"{second}":{{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}}}"#
            )
        };
        assert!(message(&two("b"), 6).contains("tensors `a` and `b` overlap"));
        assert!(message(&two("a"), 6).contains("tensor `a` is there twice"));
        assert!(message("[1]", 0).contains("not a safetensors file"));
        assert_eq!(parse(&[]).unwrap_err(), HeaderError::Empty);
        assert_eq!(parse(b"PK\x03\x04\x14\0\0\0\x08\0").unwrap_err(), HeaderError::Zip);
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
        assert_eq!(parse(pointer).unwrap_err(), HeaderError::LfsPointer);
        assert!(parse(&[1, 2]).unwrap_err().to_string().contains("truncated"));
        assert!(parse(&200_u64.to_le_bytes()).unwrap_err().to_string().contains("wants 208 bytes"));
        assert!(parse(&[255; 64]).unwrap_err().to_string().contains("not a safetensors file"));
        let huge = r#"{"a":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,0]}}"#;
        assert!(message(huge, 0).contains("takes"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_offsets_panic(begin in any::<u64>(), end in any::<u64>(), extent in any::<u64>(), data in 0usize..64) {
            let json = format!(
                r#"{{"a":{{"dtype":"BF16","shape":[{extent},2],"data_offsets":[{begin},{end}]}},"b":{{"dtype":"X","shape":[],"data_offsets":[{end},{end}]}}}}"#
            );
            let _ = parse(&file(&json, data));
        }
    }
}
