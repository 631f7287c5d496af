//! Where every message went: the sums that must hold whenever the agent has caught up.

use std::time::Duration;

use crate::agent::{Agent, Metrics};

/// Waits until the pipeline has read `messages`, over all lives of the agent, and its output has
/// nothing pending, then checks that its books balance: a pipeline commits its counts with its
/// results, so that they hold over any crash.
///
/// Every message read was rejected or made one event (the suites' transforms neither filter nor
/// multiply); every event was used, late, or rejected by the aggregate; every result was delivered
/// or refused.
///
/// # Panics
/// When one sum does not hold, or the agent does not catch up within `within`.
pub async fn balances(
    agent: &Agent,
    pipeline: &str,
    output: &str,
    messages: u64,
    within: Duration,
) -> Metrics {
    agent.reaches("pipeline_read_messages", pipeline, messages, within).await;
    drained(agent, output, within).await;
    let metrics = agent.metrics().await.expect("the agent answers");
    let of = |metric: &str| metrics.of(&format!("pipeline_{metric}"), pipeline);
    let (read, rejected, events) = (of("read_messages"), of("rejected_messages"), of("events"));
    assert_eq!(read, messages, "{pipeline}: read more than there was");
    assert_eq!(read, rejected + events, "{pipeline}: read = rejected {rejected} + events {events}");
    let (used, late, refused) = (of("used_events"), of("late_events"), of("rejected_events"));
    assert_eq!(events, used + late + refused, "{pipeline}: used {used}, late {late}, rejected {refused}");
    holds(agent).await;
    metrics
}

/// The agent's own equations hold: now, and in every check it has made since it started.
///
/// # Panics
/// When one does not.
pub async fn holds(agent: &Agent) {
    let ledger = agent.status().await.expect("the agent answers")["ledger"].take();
    assert_eq!(ledger["balances"], true, "{ledger:#}");
    let metrics = agent.metrics().await.expect("the agent answers");
    assert!(metrics.all("ledger_imbalance_records").iter().all(|records| *records == 0.0), "{ledger:#}");
    let logged = agent.logged();
    assert!(!logged.contains("ledger does not balance"), "it did not balance at one time");
}

/// Waits until what the pipelines committed has all been confirmed. An agent that has just started
/// may not have looked yet, and say so too soon: wait for what arrives as well.
///
/// # Panics
/// When it is not within `within`.
pub async fn drained(agent: &Agent, output: &str, within: Duration) {
    crate::process::eventually(&format!("{output} to have nothing pending"), within, async || {
        let metrics = agent.metrics().await.ok()?;
        let lag: f64 = metrics.all("pipeline_lag_messages").iter().sum();
        (lag == 0.0 && metrics.of("output_pending_results", output) == 0).then_some(())
    })
    .await;
}
