//! Tables in Markdown that are also easy to read as they are.

/// A table under a head; the first column is left-aligned, the others are right-aligned.
pub(crate) fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        std::iter::once(head).chain(rows.iter().map(Vec::as_slice)).map(escaped).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let rule = widths.iter().enumerate().map(|(column, &width)| match column {
        0 => "-".repeat(width),
        _ => format!("{}:", "-".repeat(width - 1)),
    });
    let mut lines: Vec<String> = rows.iter().map(|row| line(row, &widths)).collect();
    lines.insert(1, format!("| {} |", rule.collect::<Vec<_>>().join(" | ")));
    lines.join("\n") + "\n"
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cell = |(column, (text, &width)): (usize, (&String, &usize))| match column {
        0 => format!("{text:<width$}"),
        _ => format!("{text:>width$}"),
    };
    let cells: Vec<String> = row.iter().zip(widths).enumerate().map(cell).collect();
    format!("| {} |", cells.join(" | "))
}

fn escaped(row: &[String]) -> Vec<String> {
    row.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(String::from).to_vec();
        let found = table(&row(["run", "time"]), &[row(["größer", "7"]), row(["a|b", "12:34"])]);
        let wanted = "| run    |  time |\n| ------ | ----: |\n| größer |     7 |\n| a\\|b   | 12:34 |\n";
        assert_eq!(found, wanted);
    }
}
