//! Patterns of paths: `*` and `?` stand for characters within one name.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The files below `directory` that `pattern` matches, in the order of their names.
///
/// # Errors
/// If a directory on the way cannot be read.
pub(super) fn matching(directory: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let mut found = vec![if pattern.starts_with('/') { PathBuf::from("/") } else { directory.to_path_buf() }];
    for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let mut next = Vec::new();
        for path in found {
            if !part.contains(['*', '?']) {
                next.push(path.join(part));
                continue;
            }
            if path.is_dir() {
                let name =
                    |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                next.extend(entries(&path)?.into_iter().filter(|path| matches(part, &name(path))));
            }
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    Ok(found)
}

/// What is in a directory and not hidden, in the order of the names; a link to nothing is kept, so that it is reported.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(Error::io(directory))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.map_err(Error::io(directory))?;
    paths.retain(|path| !path.file_name().unwrap_or_default().to_string_lossy().starts_with('.'));
    paths.sort();
    Ok(paths)
}

/// Whether `name` is what `pattern` says: goes back to the last `*` where a character differs.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let mut at = 0;
    let mut of_name = 0;
    let mut star: Option<(usize, usize)> = None;
    while of_name < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, of_name));
                at += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == name[of_name] => {
                at += 1;
                of_name += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                of_name = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|&rest| rest == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_any_number_of_characters_and_a_question_mark_one() {
        for (pattern, name) in
            [("*", ""), ("a*c", "abbc"), ("*.txt", "a.b.txt"), ("?-*", "é-1"), ("a**", "a")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a*c", "abcd"), ("?", ""), ("*.txt", "txt"), ("a", "ab")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
