//! "Did you mean": the nearest of a few known words.

/// The number of insertions, deletions, replacements and swaps of neighbours that turn `a` into
/// `b` (optimal string alignment), without regard to ASCII case.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().map(|c| c.to_ascii_lowercase()).collect();
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

/// Words longer than this are not compared: the work grows with the square of the length, and
/// nobody mistypes that much.
const LONGEST: usize = 128;

/// The candidate nearest to `word`, if it is at most `within` edits away. Of equally near ones
/// the first wins.
pub fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    within: usize,
) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let near = candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= within.max(1) * 4)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(edits, _)| *edits <= within);
    near.min_by_key(|(edits, _)| *edits).map(|(_, candidate)| candidate)
}

/// The candidate that a short word (a key, a name) most likely meant: at most a third of its
/// letters may be wrong, or `-` and `_` taken for each other.
pub fn similar<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['-', '_', ' '], "").to_ascii_lowercase();
    let same = candidates.clone().into_iter().find(|candidate| plain(candidate) == plain(word));
    same.or_else(|| nearest(word, candidates, (word.chars().count() / 3).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_one_edit() {
        assert_eq!(distance("namespcae", "namespace"), 1);
        assert_eq!(distance("Role", "role"), 0);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        let keys = ["namespace", "service_account", "target", "role"];
        assert_eq!(similar("serviceAccount", keys), Some("service_account"));
        assert_eq!(similar("namespcae", keys), Some("namespace"));
        assert_eq!(similar("rol", keys), Some("role"));
        assert_eq!(similar("colour", keys), None);
        assert_eq!(similar(&"x".repeat(5000), keys), None);
    }
}
