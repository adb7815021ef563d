//! Columns for a terminal, as kubectl prints them.

use crate::paint;

/// Between two columns.
const GAP: &str = "   ";

/// A table as text: the head, then a line per row, columns as wide as their widest cell.
pub(crate) fn render<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| paint::one_line(cell))).collect();
    let mut widths = head.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(paint::width(cell));
        }
    }
    let mut text = line(&head, &widths);
    for row in &rows {
        text.push_str(&line(&row.each_ref().map(String::as_str), &widths));
    }
    text
}

fn line(cells: &[&str], widths: &[usize]) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, width)| padded(cell, *width)).collect();
    format!("{}\n", padded.join(GAP).trim_end())
}

/// The cell with blanks after it; colours take no room.
fn padded(cell: &str, width: usize) -> String {
    let blanks = width.saturating_sub(paint::width(cell));
    format!("{cell}{:blanks$}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "1".to_owned()], ["longer".to_owned(), "2".to_owned()]];
        assert_eq!(render(["NAME", "N"], &rows), "NAME     N\na        1\nlonger   2\n");
        let rows = [[paint::bad("a"), "1".to_owned()], ["longer".to_owned(), "2".to_owned()]];
        let text = paint::plain(&render(["NAME", "N"], &rows));
        assert_eq!(text, "NAME     N\na        1\nlonger   2\n");
    }

    #[test]
    fn a_cell_begins_no_row() {
        let rows = [["a\nb\u{2028}c".to_owned(), "1".to_owned()]];
        assert_eq!(render(["NAME", "N"], &rows), "NAME            N\na\\nb\\u{2028}c   1\n");
    }
}
