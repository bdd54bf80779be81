//! Tables that fit the terminal.

/// The number of terminal columns that a text takes. Wide characters of East Asian scripts and emoji take two,
/// combining marks none; this is close enough to align columns.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    match c as u32 {
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f | 0x20d0..=0x20ff => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Cuts a text to at most `max` columns. `…` replaces the part that was cut off, at the end or (for paths) at the
/// start.
pub(super) fn cut(text: &str, max: usize, keep_end: bool) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut left = max.saturating_sub(1);
    let mut take = |c: &char| {
        let fits = char_width(*c) <= left;
        left = if fits { left - char_width(*c) } else { 0 };
        fits
    };
    if keep_end {
        let tail: Vec<char> = text.chars().rev().take_while(&mut take).collect();
        std::iter::once('…').chain(tail.into_iter().rev()).collect()
    } else {
        text.chars().take_while(&mut take).chain(std::iter::once('…')).collect()
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// The column's title.
    pub title: &'static str,
    /// Whether it is aligned to the right, as numbers are.
    pub right: bool,
    /// The width that it may be cut to, in terminal columns; `None` if it must not be cut.
    pub min: Option<usize>,
    /// Whether it is cut at the start, because the end says more (paths).
    pub keep_end: bool,
    /// The order in which columns are left out if the table does not fit: the highest first; 0 is never left out.
    pub drop: u8,
}

impl Column {
    /// A column of words.
    pub(super) const fn left(title: &'static str) -> Self {
        Self { title, right: false, min: None, keep_end: false, drop: 0 }
    }

    /// A column of numbers.
    pub(super) const fn right(title: &'static str) -> Self {
        Self { right: true, ..Self::left(title) }
    }

    /// Allows cutting the column to this many terminal columns.
    pub(super) const fn min(self, min: usize) -> Self {
        Self { min: Some(min), ..self }
    }

    /// Cuts the column at the start.
    pub(super) const fn keep_end(self) -> Self {
        Self { keep_end: true, ..self }
    }

    /// Allows leaving the column out.
    pub(super) const fn drop(self, order: u8) -> Self {
        Self { drop: order, ..self }
    }
}

const GAP: usize = 2;

/// The lines of a table, the titles first. With a maximum width, empty columns are left out first; then texts are cut,
/// and then columns are left out, until the table fits. Without one (a pipe, a file), everything is shown in full.
pub(super) fn render(columns: &[Column], rows: &[Vec<String>], max: Option<usize>) -> Vec<String> {
    let natural = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| width(cell));
        cells.max().unwrap_or(0).max(width(columns[index].title))
    };
    let has_content =
        |index: &usize| max.is_none() || rows.iter().any(|row| row.get(*index).is_some_and(|c| !c.is_empty()));
    let mut shown: Vec<usize> = (0..columns.len()).filter(has_content).collect();
    let widths = loop {
        let mut widths: Vec<usize> = shown.iter().map(|&index| natural(index)).collect();
        let Some(max) = max else { break widths };
        let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        // The widest text is cut first, one terminal column at a time.
        while total(&widths) > max {
            let can_shrink = |&slot: &usize| columns[shown[slot]].min.is_some_and(|min| widths[slot] > min);
            let Some(widest) = (0..shown.len()).filter(can_shrink).max_by_key(|&slot| widths[slot]) else { break };
            widths[widest] -= 1;
        }
        let droppable = shown.iter().filter(|&&index| columns[index].drop > 0);
        match droppable.max_by_key(|&&index| columns[index].drop).copied() {
            Some(index) if total(&widths) > max => shown.retain(|&other| other != index),
            _ => break widths,
        }
    };
    let line = |cell: &dyn Fn(usize) -> String| {
        let mut line = String::new();
        for (slot, &index) in shown.iter().enumerate() {
            let text = cut(&cell(index), widths[slot], columns[index].keep_end);
            let pad = " ".repeat(widths[slot].saturating_sub(width(&text)));
            line.push_str(if slot == 0 { "" } else { "  " });
            line += &if columns[index].right { pad + &text } else { text + &pad };
        }
        line.truncate(line.trim_end().len());
        line
    };
    let titles = line(&|index| columns[index].title.to_owned());
    let body = rows.iter().map(|row| line(&|index| row.get(index).cloned().unwrap_or_default()));
    std::iter::once(titles).chain(body).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::left("Id"),
        Column::left("Source").min(8).keep_end(),
        Column::left("Host").min(4).drop(1),
        Column::right("Size"),
        Column::left("Tags").min(4).drop(2),
    ];

    fn check(tags: &str, max: Option<usize>, expected: &[&str]) {
        let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["1f2e", "/home/me/Documents", "laptop", "1.2 GiB", tags]),
            row(["3d4c", "/etc", "laptop", "5 B", ""]),
        ];
        assert_eq!(render(COLUMNS, &rows, max), expected);
    }

    #[test]
    fn everything_is_shown_where_there_is_room() {
        check(
            "monthly",
            None,
            &[
                "Id    Source              Host       Size  Tags",
                "1f2e  /home/me/Documents  laptop  1.2 GiB  monthly",
                "3d4c  /etc                laptop      5 B",
            ],
        );
    }

    #[test]
    fn texts_are_cut_then_columns_go() {
        check(
            "monthly",
            Some(40),
            &[
                "Id    Source    Host       Size  Tags",
                "1f2e  …cuments  laptop  1.2 GiB  monthly",
                "3d4c  /etc      laptop      5 B",
            ],
        );
        check(
            "",
            Some(34),
            &[
                "Id    Source       Host       Size",
                "1f2e  …/Documents  laptop  1.2 GiB",
                "3d4c  /etc         laptop      5 B",
            ],
        );
        check(
            "monthly",
            Some(25),
            &["Id    Source         Size", "1f2e  …Documents  1.2 GiB", "3d4c  /etc            5 B"],
        );
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(width("日本e\u{301}"), 5);
        assert_eq!(cut("日本語", 5, false), "日本…");
        assert_eq!(cut("日本語", 4, true), "…語");
        assert_eq!(cut("abc", 3, true), "abc");
    }
}
