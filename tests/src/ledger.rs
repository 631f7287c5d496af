//! The account of all messages: the sums that must hold whenever the agent has caught up.

use std::time::Duration;

use crate::agent::{MetricsText, TestAgent};

/// Waits until the pipeline has read `messages` since the first start of the agent and its output has nothing
/// pending, then checks that its counts balance. A pipeline commits its counts with its results, so that they
/// hold over any crash.
///
/// Every message read was rejected or made one event (the transforms of the tests neither filter nor
/// multiply); every event was used, late, or rejected by the aggregate; every result was delivered or
/// refused.
///
/// # Panics
/// When one sum does not hold, or the agent does not catch up within `within`.
pub async fn check_balance(
    agent: &TestAgent,
    pipeline: &str,
    output: &str,
    messages: u64,
    within: Duration,
) -> MetricsText {
    agent.wait_for_metric("pipeline_read_messages", pipeline, messages, within).await;
    wait_until_drained(agent, output, within).await;
    let metrics = agent.metrics().await.expect("the agent answers");
    let of = |metric: &str| metrics.of(&format!("pipeline_{metric}"), pipeline);
    let read = of("read_messages");
    let rejected = of("rejected_messages");
    let events = of("events");
    assert_eq!(read, messages, "{pipeline}: read more than there was");
    assert_eq!(read, rejected + events, "{pipeline}: read = rejected {rejected} + events {events}");
    let used = of("used_events");
    let late = of("late_events");
    let refused = of("rejected_events");
    assert_eq!(events, used + late + refused, "{pipeline}: used {used}, late {late}, rejected {refused}");
    check_ledger(agent).await;
    metrics
}

/// Checks that the agent's own equations hold now and have held in every check since it started.
///
/// # Panics
/// When one does not.
pub async fn check_ledger(agent: &TestAgent) {
    let ledger = agent.status().await.expect("the agent answers")["ledger"].take();
    assert_eq!(ledger["balances"], true, "{ledger:#}");
    let metrics = agent.metrics().await.expect("the agent answers");
    assert!(metrics.all("ledger_imbalance_records").iter().all(|records| *records == 0.0), "{ledger:#}");
    let logged = agent.log_text();
    assert!(!logged.contains("ledger does not balance"), "it did not balance at one time");
}

/// Waits until everything that the pipelines committed is confirmed. An agent that has just started may
/// report this before it has looked, so a test must wait for the arrival of the results as well.
///
/// # Panics
/// When it is not within `within`.
pub async fn wait_until_drained(agent: &TestAgent, output: &str, within: Duration) {
    crate::process::eventually(&format!("{output} to have nothing pending"), within, async || {
        let metrics = agent.metrics().await.ok()?;
        let lag: f64 = metrics.all("pipeline_lag_messages").iter().sum();
        (lag == 0.0 && metrics.of("output_pending_results", output) == 0).then_some(())
    })
    .await;
}
