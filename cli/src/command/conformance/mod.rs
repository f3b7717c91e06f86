//! `conformance URI`: the suite of the clauses, run there on scratch data alone.

mod scratch;

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;
use strongroom::storage::{BlockingMode, OpenContext};
use strongroom_conformance::storage::{Clause, Outcome, Verdict, clauses};

use crate::context::{Context, parse_uri};
use crate::exit::Failure;
use crate::output::one_line;
use scratch::Scratch;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where: data that is there is not touched
    #[arg(value_name = "URI")]
    place: OsString,
}

#[derive(Serialize)]
struct Report {
    uri: String,
    passed: bool,
    clauses: Vec<JsonClause>,
}

#[derive(Serialize)]
struct JsonClause {
    clause: String,
    title: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_tested: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    breach: Option<String>,
}

impl JsonClause {
    fn new(clause: &Clause, outcome: Outcome) -> Self {
        let (result, not_tested, breach) = match outcome {
            Ok(Verdict::Passed) => ("passed", Vec::new(), None),
            Ok(Verdict::Limited(reasons)) => ("limited", reasons, None),
            Err(breach) => ("failed", Vec::new(), Some(breach.to_string())),
        };
        Self { clause: format!("S{}", clause.number()), title: clause.title(), result, not_tested, breach }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{:<4} {:<8} {}", self.clause, self.result, self.title)];
        lines.extend(self.not_tested.iter().map(|reason| format!("{:13} not tested: {reason}", "")));
        lines.extend(self.breach.iter().map(|breach| format!("{:13} broken: {breach}", "")));
        lines
    }
}

pub(crate) async fn run(arguments: Arguments, context: &mut Context) -> Result<(), Failure> {
    let uri = parse_uri(&arguments.place)?;
    let env = strongroom::env::system().map_err(|error| Failure::failed(error.to_string()))?;
    let open = OpenContext::new(env).with_blocking(BlockingMode::Inline);
    let scratch =
        Scratch::new(context.registry.clone(), uri.clone(), open).await.map_err(|failure| failure.on(&uri))?;
    context.interrupt.listen()?;
    let mut report = Report { uri: uri.to_string(), passed: true, clauses: Vec::new() };
    for clause in clauses() {
        let place = scratch.place(clause.number()).await.map_err(|failure| failure.on(&uri))?;
        let outcome = clause.run(&place).await;
        if let Err(error) = place.remove().await {
            let (number, uri) = (clause.number(), place.uri());
            context.output.notice(&format!(
                "scratch data of S{number} is left in {uri} ({error}); nothing of yours is in it: remove it with the tools of that medium"
            ));
        }
        let clause = JsonClause::new(&clause, outcome);
        if !context.output.json() {
            for line in clause.lines() {
                context.output.line(&one_line(&line))?;
            }
            context.output.flush()?;
        }
        report.passed &= clause.breach.is_none();
        report.clauses.push(clause);
        context.interrupt.check()?;
    }
    let broken: Vec<&str> =
        report.clauses.iter().filter(|clause| clause.breach.is_some()).map(|clause| clause.clause.as_str()).collect();
    let broken = broken.join(", ");
    if context.output.json() {
        context.output.document("strongroom/conformance/1", &report)?;
    }
    if report.passed {
        return Ok(());
    }
    Err(Failure::failed(format!("this storage breaks {broken}: a repository on it is not safe")).on(&uri))
}
