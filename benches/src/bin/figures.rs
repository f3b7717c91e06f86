//! Puts measured figures into the pages that show them: `figures benchmarks FIGURES NOTE` into `docs/benchmarks.md` and
//! `docs/benchmarks.svg`, `figures decision FIGURES NOTE` into the decision on block sizes.

use std::path::{Path, PathBuf};

use strongroom_benches::report::{Report, replaced};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, figures, note] = arguments.as_slice() else {
        return Err("usage: figures benchmarks|decision FIGURES NOTE".into());
    };
    let report = Report::read(&std::fs::read_to_string(figures)?)?;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let note = format!("{}\n\n", note.trim());
    match kind.as_str() {
        "benchmarks" => {
            rewrite(
                docs.join("benchmarks.md"),
                &[
                    ("run", note),
                    ("targets", report.targets()),
                    ("limits", report.limits()),
                    ("traces", report.traces()),
                ],
            )?;
            Ok(std::fs::write(docs.join("benchmarks.svg"), report.plot())?)
        }
        "decision" => {
            let page = docs.join("decisions/0005-chunk-and-block-sizes.md");
            rewrite(page, &[("run", note), ("matrix", report.by_block_size())])
        }
        other => Err(format!("`{other}` is neither benchmarks nor decision").into()),
    }
}

fn rewrite(page: PathBuf, parts: &[(&str, String)]) -> Result<(), Box<dyn std::error::Error>> {
    let mut text = std::fs::read_to_string(&page)?;
    for (name, content) in parts {
        text = replaced(&text, name, content)?;
    }
    println!("{}", page.display());
    Ok(std::fs::write(page, text)?)
}
