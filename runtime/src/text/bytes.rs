//! The bytes of a byte-level vocabulary's tokens (Radford et al., 2019), and text out of bytes as they come.

/// The bytes that a token stands for. A token with other characters than the alphabet's is an added one, and stands for
/// itself.
pub(super) fn bytes_of(token: &str) -> Vec<u8> {
    let spelled: Option<Vec<u8>> = token.chars().map(byte_of).collect();
    spelled.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The byte of a character of the alphabet: printable bytes of Latin-1 are themselves, the 68 others follow from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Takes the text that stands at the beginning of `bytes`, and leaves what may still become a character. What can become
/// none is U+FFFD, as often as [`String::from_utf8_lossy`] writes it.
pub(super) fn take_text(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let rest = &bytes[taken..];
        if chunk.invalid().is_empty() || may_go_on(rest) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        taken += chunk.invalid().len();
    }
    bytes.drain(..taken);
    text
}

/// Whether bytes that are no text are the beginning of a character.
fn may_go_on(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_alphabet_has_a_character_for_every_byte() {
        let mut bytes: Vec<u8> = ('\0'..='\u{200}').filter_map(byte_of).collect();
        assert_eq!(bytes.len(), 256);
        bytes.sort_unstable();
        assert!(bytes.iter().enumerate().all(|(n, byte)| n == usize::from(*byte)));
        // As the published vocabularies spell a space, a newline and DEL.
        assert_eq!(bytes_of("\u{120}a\u{10A}\u{121}"), b" a\n\x7F");
        assert_eq!(bytes_of("<|end|>"), b"<|end|>");
        assert_eq!(bytes_of("\u{65E5}"), "\u{65E5}".as_bytes());
    }

    proptest! {
        #[test]
        fn pieces_are_the_lossy_whole(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..12)) {
            let mut held = Vec::new();
            let mut text = String::new();
            for piece in &pieces {
                held.extend(piece);
                text.push_str(&take_text(&mut held));
                prop_assert!(held.len() < 4);
            }
            text.push_str(&String::from_utf8_lossy(&held));
            let whole = pieces.concat();
            prop_assert_eq!(text, String::from_utf8_lossy(&whole));
        }

        #[test]
        fn whole_characters_are_never_torn(whole in "\\PC{0,20}", cuts in proptest::collection::vec(1..4_usize, 1..8)) {
            let mut held = Vec::new();
            let mut text = String::new();
            let mut rest = whole.as_bytes();
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                held.extend(piece);
                text.push_str(&take_text(&mut held));
                prop_assert!(whole.starts_with(&text));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(text, whole);
        }
    }
}
