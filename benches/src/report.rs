//! The tables and the plot of `docs/benchmarks.md`, and the table of the decision on block sizes, made of figures: so that
//! no number there is typed by hand.

use std::fmt::Write as _;

use crate::figures::{Figure, Median, medians, shown};

/// What a row is held to.
#[derive(Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// At least this part of a limit of the same run.
    OfLimit(f64, &'static str),
    /// At least this part of another row of ours.
    OfRow(f64, &'static str),
    /// Shown, and held to nothing.
    None,
}

/// One row of the table.
struct Target {
    /// Start of the row's name.
    row: &'static str,
    what: &'static str,
    goal: Goal,
}

const fn target(row: &'static str, what: &'static str, goal: Goal) -> Target {
    Target { row, what, goal }
}

use Goal::{AtLeast, AtMost, OfLimit, OfRow};

const TARGETS: [Target; 42] = [
    target("mem/write/dedup-on", "`mem:` one large file, 64 KiB writes, dedup on", AtLeast(1_200.0)),
    target("mem/write/dedup-off", "`mem:` the same, dedup off", AtLeast(2_000.0)),
    target("mem/read/warm", "`mem:` read it back, 64 KiB reads", AtLeast(3_500.0)),
    target("file/write/dedup-on", "`file:` write it, durable at the end", OfLimit(0.65, "plain file, write + fsync")),
    target("file/write/dedup-off", "`file:` the same, dedup off", Goal::None),
    target("file/read/warm", "`file:` read it back, pages cached", Goal::None),
    target("file/read/cold", "`file:` cold read", OfLimit(0.85, "plain file, cold read")),
    target("file/random-reads/cache-off", "`file:` random 4 KiB reads, no decoded cache", AtLeast(15_000.0)),
    target("file/random-reads/cache-default", "`file:` the same, default cache (24 MiB of 64)", Goal::None),
    target("file/random-reads/cache-on", "`file:` the same, all in the cache", AtLeast(200_000.0)),
    target("mem/random-reads/cache-off", "`mem:` random 4 KiB reads, no decoded cache", AtLeast(15_000.0)),
    target("mem/random-reads/cache-default", "`mem:` the same, default cache (24 MiB of 64)", Goal::None),
    target("mem/random-reads/cache-on", "`mem:` the same, all in the cache", AtLeast(200_000.0)),
    target("file/create/1", "`file:` create a 1 KiB file, durable each, one thread", AtLeast(1_500.0)),
    target("file/create/32", "`file:` the same, 32 at once", AtLeast(10_000.0)),
    target("mem/create/1", "`mem:` the same, one thread", AtLeast(15_000.0)),
    target("mem/create/32", "`mem:` the same, 32 at once", AtLeast(15_000.0)),
    target("file/append/first", "`file:` append 1 KiB, durable each: first tenth", AtLeast(1_500.0)),
    target("file/append/last", "`file:` … last tenth, against the first (flat)", OfRow(0.9, "file/append/first")),
    target("file/append/peak", "`file:` … most stored meanwhile", Goal::None),
    target("mem/append/first", "`mem:` append 1 KiB, a commit each: first tenth", Goal::None),
    target("mem/append/last", "`mem:` … last tenth, against the first (flat)", OfRow(0.9, "mem/append/first")),
    target("mem/append/peak", "`mem:` … most stored meanwhile", Goal::None),
    target("file/many-files/5000", "`file:` 5,000 files of 1-4 KiB, one transaction", AtMost(0.1)),
    target("file/many-files/stored", "`file:` … stored/logical after `compact`, less the header", AtMost(1.1)),
    target("mem/many-files/5000", "`mem:` 5,000 files of 1-4 KiB, one transaction", AtMost(0.1)),
    target("mem/many-files/stored", "`mem:` … stored/logical after `compact`, less the header", AtMost(1.1)),
    target("file/open/1", "`file:` open, key derivation aside, and look up one file", AtMost(5.0)),
    target("file/open/requests", "`file:` … requests to storage meanwhile", Goal::None),
    target("file/folder", "`file:` one folder: create, look up, list", Goal::None),
    target("mem/folder", "`mem:` one folder: create, look up, list", Goal::None),
    target("file/memory", "`file:` memory to write and read 1 GiB", AtMost(96.0)),
    target("file/kv/put 64 KiB, durable", "`file:` put 64 KiB, durable each", Goal::None),
    target("file/kv/put 64 KiB, batches", "`file:` put 64 KiB in batches of 64", AtLeast(600.0)),
    target("file/kv/get 64 KiB", "`file:` get 64 KiB at random, warm", AtLeast(40_000.0)),
    target("file/kv/put 100 B", "`file:` puts of 100 bytes in batches of 1,000", Goal::None),
    target("file/kv/get 100 B", "`file:` then random gets", Goal::None),
    target("mem/kv/put 64 KiB, durable", "`mem:` put 64 KiB, a commit each", Goal::None),
    target("mem/kv/put 64 KiB, batches", "`mem:` put 64 KiB in batches of 64", AtLeast(600.0)),
    target("mem/kv/get 64 KiB", "`mem:` get 64 KiB at random", AtLeast(40_000.0)),
    target("mem/kv/put 100 B", "`mem:` puts of 100 bytes in batches of 1,000", Goal::None),
    target("mem/kv/get 100 B", "`mem:` then random gets", Goal::None),
];

/// A row with what it is held to, computed.
struct Judged<'a> {
    target: &'a Target,
    median: &'a Median,
    goal: String,
    /// How many times the goal; over 1 is met. `None` where there is no goal.
    times: Option<f64>,
}

/// The rows of figures, judged.
pub struct Report {
    medians: Vec<Median>,
}

impl Report {
    /// From the lines of a file of figures.
    ///
    /// # Errors
    /// What line is none.
    pub fn read(text: &str) -> Result<Self, String> {
        let parse = |(number, line): (usize, &str)| {
            serde_json::from_str::<Figure>(line).map_err(|error| format!("line {}: {error}", number + 1))
        };
        let figures = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse);
        Ok(Self { medians: medians(&figures.collect::<Result<Vec<_>, _>>()?) })
    }

    fn find(&self, who: &str, row: &str) -> Option<&Median> {
        self.medians.iter().find(|median| median.who == who && median.row.starts_with(row))
    }

    fn judged(&self) -> Vec<Judged<'_>> {
        let mut judged = Vec::new();
        for target in &TARGETS {
            for median in self.medians.iter().filter(|row| row.who == "strongroom" && row.row.starts_with(target.row)) {
                let of = |part: f64, other: Option<&Median>, name: &str| match other {
                    Some(other) => {
                        let goal = format!("≥ {part} × {} ({name})", shown(other.value));
                        (goal, Some(median.value / (part * other.value)))
                    }
                    None => (format!("≥ {part} × {name}, not measured"), None),
                };
                let (goal, times) = match target.goal {
                    AtLeast(least) => (format!("≥ {}", shown(least)), Some(median.value / least)),
                    AtMost(most) => (format!("≤ {}", shown(most)), Some(most / median.value.max(1e-9))),
                    OfLimit(part, limit) => of(part, self.find("limit", limit), limit),
                    OfRow(part, row) => {
                        // The row of the same ladder: what follows the name's start is alike.
                        let name = match median.row.rsplit_once(" of ") {
                            Some((_, count)) => format!("{row} tenth of {count}"),
                            None => row.to_owned(),
                        };
                        let same = |other: &&Median| other.who == "strongroom" && other.row == name;
                        of(part, self.medians.iter().find(same), "the first")
                    }
                    Goal::None => (String::new(), None),
                };
                judged.push(Judged { target, median, goal, times });
            }
        }
        judged
    }

    /// The table against the targets.
    #[must_use]
    pub fn targets(&self) -> String {
        let mut table = "| work | target | measured (least to most) | of the target | ZboxFS, same run |\n".to_owned();
        table.push_str("|---|---|---|---|---|\n");
        for Judged { target, median, goal, times } in self.judged() {
            let unit = &median.unit;
            let times = times.map_or_else(String::new, |times| {
                format!("{} {}", shown(times), if times >= 1.0 { "met" } else { "**short**" })
            });
            let detail = match target.row {
                "file/folder" | "mem/folder" | "file/append/first" | "file/append/last" | "file/append/peak"
                | "mem/append/first" | "mem/append/last" | "mem/append/peak" | "file/open/1" | "file/open/requests"
                | "file/kv/put 100 B" | "mem/kv/put 100 B" => {
                    let after = median.row.split_once('/').map_or("", |(_, after)| after);
                    format!(" ({after})")
                }
                _ => String::new(),
            };
            let start = target.row;
            let peer = self.find("zbox", start).map_or_else(String::new, |peer| {
                let other = if peer.row == median.row { String::new() } else { format!(" ({})", tail(&peer.row)) };
                format!("{} {}{other}", shown(peer.value), peer.unit)
            });
            let _ = writeln!(
                table,
                "| {}{detail} | {goal} | {} {unit} ({} to {}) | {times} | {peer} |",
                target.what,
                shown(median.value),
                shown(median.least),
                shown(median.most)
            );
        }
        table
    }

    /// What each step can do alone.
    #[must_use]
    pub fn limits(&self) -> String {
        let mut table = "| limit | measured (least to most) |\n|---|---|\n".to_owned();
        for limit in self.medians.iter().filter(|row| row.who == "limit") {
            let Median { row, unit, value, least, most, .. } = limit;
            let _ = writeln!(table, "| {row} | {} {unit} ({} to {}) |", shown(*value), shown(*least), shown(*most));
        }
        table
    }

    /// What the rows that claim durability asked of the storage.
    #[must_use]
    pub fn traces(&self) -> String {
        let mut table = "| row | durable operations | commits | barriers | puts |\n|---|---|---|---|---|\n".to_owned();
        for median in &self.medians {
            if let Some(trace) = median.trace {
                let [operations, commits, barriers, puts] =
                    [trace.operations, trace.commits, trace.barriers, trace.puts].map(shown_count);
                let _ = writeln!(table, "| {} | {operations} | {commits} | {barriers} | {puts} |", median.row);
            }
        }
        table
    }

    /// Every row beside every block size.
    #[must_use]
    pub fn by_block_size(&self) -> String {
        let mut sizes: Vec<u32> = self.medians.iter().filter_map(|row| row.block_bytes).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let mut rows: Vec<(&str, &str)> = Vec::new();
        for median in self.medians.iter().filter(|row| row.who == "strongroom") {
            let named = (median.row.as_str(), median.unit.as_str());
            if !rows.contains(&named) {
                rows.push(named);
            }
        }
        let mut table = "| row |".to_owned();
        for bytes in &sizes {
            let _ = write!(table, " {} KiB |", bytes >> 10);
        }
        let _ = writeln!(table, "\n|---|{}", "---|".repeat(sizes.len()));
        for (row, unit) in rows {
            let _ = write!(table, "| {row}, {unit} |");
            for bytes in &sizes {
                let cell = self.medians.iter().find(|median| {
                    median.who == "strongroom" && median.row == row && median.block_bytes == Some(*bytes)
                });
                let _ = write!(table, " {} |", cell.map(|cell| shown(cell.value)).unwrap_or_default());
            }
            table.push('\n');
        }
        table
    }

    /// A bar a row: how many times its target it reaches, on a logarithmic scale around the target.
    #[must_use]
    pub fn plot(&self) -> String {
        const LINE: usize = 22;
        let judged: Vec<_> = self.judged().into_iter().filter_map(|row| Some((row.times?, row))).collect();
        let height = (judged.len() + 2) * LINE;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"{height}\" font-family=\"sans-serif\" \
             font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        // From a tenth to ten times the target.
        let x = |times: f64| 700.0 + 220.0 * times.clamp(0.1, 10.0).log10();
        for (times, label) in [(0.1, "0.1 ×"), (1.0, "target"), (10.0, "10 ×")] {
            let (at, end) = (x(times), height - LINE);
            let _ = writeln!(
                svg,
                "<line x1=\"{at}\" x2=\"{at}\" y1=\"10\" y2=\"{end}\" stroke=\"#888\"/><text x=\"{at}\" y=\"{}\" \
                 text-anchor=\"middle\">{label}</text>",
                end + 15
            );
        }
        for (index, (times, row)) in judged.iter().enumerate() {
            let (y, from, to) = (10 + index * LINE, x(times.min(1.0)), x(times.max(1.0)));
            let color = if *times >= 1.0 { "#2a7" } else { "#c53" };
            let _ = writeln!(
                svg,
                "<text x=\"10\" y=\"{}\">{}</text><rect x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"14\" \
                 fill=\"{color}\"/>",
                y + 11,
                row.target.what.replace('`', ""),
                to - from
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn shown_count(count: u64) -> String {
    if count < 100 { count.to_string() } else { shown(count as f64) }
}

fn tail(row: &str) -> &str {
    row.rsplit('/').next().unwrap_or(row)
}

/// A page with what stands between `<!-- NAME -->` and `<!-- end NAME -->` replaced.
///
/// # Errors
/// When the page has no such place.
pub fn replaced(page: &str, name: &str, content: &str) -> Result<String, String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end {name} -->"));
    let missing = || format!("the page has no place between `{}` and `{end}`", begin.trim());
    let (before, rest) = page.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
    Ok(format!("{before}{begin}{content}{end}{after}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test may
mod tests {
    use super::*;

    fn report(lines: &[(&str, &str, f64)]) -> Report {
        let line = |(who, row, value): &(&str, &str, f64)| {
            let figure = Figure {
                schema: crate::figures::SCHEMA.to_owned(),
                who: (*who).to_owned(),
                row: (*row).to_owned(),
                block_bytes: (*who == "strongroom").then_some(128 << 10),
                unit: "MB/s".to_owned(),
                value: *value,
                trace: None,
            };
            serde_json::to_string(&figure).unwrap() + "\n"
        };
        Report::read(&lines.iter().map(line).collect::<String>()).unwrap()
    }

    #[test]
    fn a_row_is_judged_by_its_target_or_by_a_limit_of_the_same_run() {
        let report = report(&[
            ("strongroom", "mem/write/dedup-on", 600.0),
            ("strongroom", "file/write/dedup-on", 650.0),
            ("limit", "plain file, write + fsync", 1_000.0),
            ("zbox", "mem/write/dedup-on", 200.0),
            ("strongroom", "file/append/first tenth of 100", 10.0),
            ("strongroom", "file/append/first tenth of 1000", 40.0),
            ("strongroom", "file/append/last tenth of 1000", 9.0),
        ]);
        let table = report.targets();
        let line = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert!(line("| `mem:` one large").contains("0.50 **short** | 200 MB/s"), "{table}");
        assert!(line("| `file:` write it").contains("1.00 met"), "{table}");
        assert!(line("| `file:` … last").contains("0.25 **short**"), "the ladder of the same length: {table}");
        assert_eq!(report.plot().matches("#c53").count(), 4);
        assert!(report.by_block_size().starts_with("| row | 128 KiB |"));
    }

    #[test]
    fn a_page_is_replaced_only_where_it_says() {
        let page = "a\n<!-- x -->\nold\n<!-- end x -->\nb\n";
        assert_eq!(replaced(page, "x", "new\n").unwrap(), "a\n<!-- x -->\nnew\n<!-- end x -->\nb\n");
        replaced(page, "y", "new").unwrap_err();
        replaced("<!-- x -->\n", "x", "new").unwrap_err();
    }

    #[test]
    fn a_line_that_is_no_figure_is_named() {
        assert!(Report::read("\n{}\n").err().unwrap().starts_with("line 2"));
    }
}
