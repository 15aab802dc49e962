//! Keys as file names, and back.
//!
//! A key's parts between slashes become folders; the file carries the MD5 behind the last part (`part@0123..`), so one
//! rename publishes body and checksum together. A folder never has an `@` in its name and a file always has, so the
//! keys `a` and `a/b` live side by side.

use std::path::{Path, PathBuf};

/// Longest name of one file or folder, in bytes (Linux).
const NAME_BYTES_MAX: usize = 255;

/// The path below the bucket's folder of the object `key` with this MD5; none if a part is too long for a file name.
pub(super) fn file_of(key: &str, md5: &[u8; 16]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    let mut parts = key.split('/').map(encode).peekable();
    while let Some(mut part) = parts.next() {
        if parts.peek().is_none() {
            part = format!("{part}@{}", super::hex(md5));
        }
        if part.len() > NAME_BYTES_MAX {
            return None;
        }
        path.push(part);
    }
    Some(path)
}

/// The key and MD5 that a path below the bucket's folder stands for; none if it is not one of ours.
pub(super) fn key_of(path: &Path) -> Option<(String, [u8; 16])> {
    let (parts, md5) = path.to_str()?.rsplit_once('@')?;
    let parts: Option<Vec<String>> = parts.split('/').map(decode).collect();
    Some((parts?.join("/"), unhex(md5)?))
}

/// One part of a key as a file name: anything but plain letters is written `%XX`, and an empty part is `%`.
fn encode(part: &str) -> String {
    if part.is_empty() {
        return "%".into();
    }
    let mut name = String::with_capacity(part.len());
    for (at, byte) in part.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"-_+=,".contains(&byte) || (byte == b'.' && at > 0);
        if plain {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name
}

fn decode(name: &str) -> Option<String> {
    if name == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = behind;
            continue;
        }
        let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).ok()
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut md5 = [0; 16];
    for (at, byte) in md5.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(md5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_files() {
        let md5 = *b"0123456789abcdef";
        for key in ["a", "a/b", "a//b/", "/", ".hidden/..", "per%cent@at", "Grüße/a b\n", "x/@", "%"] {
            let path = file_of(key, &md5).expect("short names fit");
            assert_eq!(key_of(&path), Some((key.to_string(), md5)), "{path:?}");
            assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
        }
        assert_eq!(file_of(&"k".repeat(223), &md5), None);
        assert!(file_of(&"k".repeat(222), &md5).is_some());
    }

    #[test]
    fn strange_files_are_no_objects() {
        for path in ["a", "a@", "a@zz", "%1@00000000000000000000000000000000", "%FF@00000000000000000000000000000000"] {
            assert_eq!(key_of(Path::new(path)), None, "{path}");
        }
    }
}
