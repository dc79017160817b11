//! Single tensors of safetensors files: enough to compare logits and tokens.

use serde_json::Value;

/// A tensor's data; the header says that it is of `dtype` (`F32`, `I32`).
///
/// # Errors
/// What is wrong with the file, in words.
pub fn tensor<'a>(file: &'a [u8], name: &str, dtype: &str) -> Result<&'a [u8], String> {
    let torn = || "it is no safetensors file".to_owned();
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(torn)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| torn())?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(torn)?;
    let header: Value = serde_json::from_slice(header).map_err(|error| format!("its header: {error}"))?;
    let entry = header.get(name).ok_or_else(|| format!("it has no tensor `{name}`"))?;
    if entry["dtype"] != dtype {
        return Err(format!("tensor `{name}` is of {}, not of {dtype}", entry["dtype"]));
    }
    let end = |n: usize| entry["data_offsets"][n].as_u64().and_then(|at| usize::try_from(at).ok());
    let range = end(0).zip(end(1)).and_then(|(from, to)| data.get(from..to));
    range.ok_or_else(|| format!("tensor `{name}` lies outside of it"))
}

/// A tensor of f32.
///
/// # Errors
/// As [`tensor`].
pub fn f32s(file: &[u8], name: &str) -> Result<Vec<f32>, String> {
    Ok(tensor(file, name, "F32")?.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// A tensor of i32.
///
/// # Errors
/// As [`tensor`].
pub fn i32s(file: &[u8], name: &str) -> Result<Vec<i32>, String> {
    Ok(tensor(file, name, "I32")?.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect())
}

/// The largest difference over the largest magnitude of the reference; infinite where they cannot be compared.
pub fn relative(found: &[f32], reference: &[f32]) -> f64 {
    if found.len() != reference.len() || found.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let largest = reference.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let error = found.iter().zip(reference).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    if error == 0.0 { 0.0 } else { f64::from(error) / f64::from(largest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn tensors_are_found() {
        let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        let good = file(header, &[0, 0, 0, 0, 0, 0, 0x80, 0x3F]);
        assert_eq!(f32s(&good, "a"), Ok(vec![1.0]));
        assert_eq!(i32s(&good, "a"), Err("tensor `a` is of \"F32\", not of I32".to_owned()));
        assert_eq!(f32s(&good, "b"), Err("it has no tensor `b`".to_owned()));
        assert_eq!(f32s(&good[..good.len() - 1], "a"), Err("tensor `a` lies outside of it".to_owned()));
        assert_eq!(f32s(&good[..20], "a"), Err("it is no safetensors file".to_owned()));
        assert_eq!(f32s(&[], "a"), Err("it is no safetensors file".to_owned()));
    }

    #[test]
    fn relative_errors() {
        assert_eq!(relative(&[1.0, -3.5], &[1.0, -4.0]), 0.125);
        assert_eq!(relative(&[1.0], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(relative(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(relative(&[0.0], &[0.0]), 0.0);
    }
}
