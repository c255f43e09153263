//! Sets of completion indexes and their text form: `0,3-5,9`.

use std::collections::BTreeSet;

/// Reads the text form; parts that do not parse, and everything from `bound` on, are left out.
pub(super) fn parse(text: &str, bound: i32) -> BTreeSet<i32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(bound.saturating_sub(1)));
        }
    }
    indexes
}

/// Writes the text form.
pub(super) fn format(indexes: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => ranges.push((*index, *index)),
        }
    }
    let text = |(first, last): (i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges() {
        for text in ["", "0", "0,1", "0-2", "0,3-5,9", "1,3,5"] {
            assert_eq!(format(&parse(text, 10)), text);
        }
        assert_eq!(format(&parse("0-20,x", 3)), "0-2");
    }
}
