//! Every metric's name, unit and labels: the stages' own, and those of the crates below, in one registry.
//!
//! What a handle is and how names are made is said in `headwater_meter`.

use headwater_host::metrics as host;
use headwater_meter::{MetricEntry, Registry, stage};
use headwater_store::metrics as store;

pub use host::{CallMetrics, CompileMetrics, FetchMetrics, HostMetrics, TripHandles, TripMetrics};
pub use store::{Disk, Log, StoreMetrics};

stage!(
    /// One `[input.NAME]`.
    Input, Inputs, "input", "an `[input.NAME]`", {
        /// Publishes that arrived, whatever became of them.
        received_messages: Counter,
        /// Payload bytes that arrived.
        received_bytes: Counter,
        /// Redeliveries recognised: acknowledged again and not stored twice.
        duplicate_messages: Counter,
        /// QoS 0 publishes dropped because the journal could not keep up.
        shed_messages: Counter,
        /// Publishes over the size limit, malformed or of no topic asked for, dropped and named in the log.
        refused_messages: Counter,
        /// Messages made durable in the journal.
        journaled_messages: Counter,
        /// Acknowledgements sent, each after the durable append.
        acknowledged_messages: Counter,
        /// Messages received and not yet durable.
        in_flight_messages: Gauge,
        /// Bytes received and not yet durable: payload, topic and 128 for each message.
        in_flight_bytes: Gauge,
        /// 1 while connected and subscribed.
        connected: Gauge,
        /// Connections made.
        connections: Counter,
        /// Times the broker had lost our session.
        sessions_lost: Counter,
        /// Connections given up because too much was received and not yet durable.
        overloads: Counter,
    }
);

stage!(
    /// One `[pipeline.NAME]`.
    Pipeline, Pipelines, "pipeline", "a `[pipeline.NAME]`", {
        /// The next message of the journal to read, as committed.
        position_messages: Gauge,
        /// Messages read from the journal.
        read_messages: Counter,
        /// Messages of the journal that are not for the pipeline, those before its first start included.
        skipped_messages: Counter,
        /// Messages lost by damage to the journal before they were read, each in a report.
        lost_messages: Counter,
        /// Messages dead-lettered at decode or by a transform.
        rejected_messages: Counter,
        /// Events that transforms kept back: the net of each call.
        filtered_events: Counter,
        /// Events that transforms added: the net of each call.
        multiplied_events: Counter,
        /// Events not used because damage took the state of their window, which is in a report.
        lost_events: Counter,
        /// Events that came out of the transforms.
        events: Counter,
        /// Events used in a result, or forwarded as one.
        used_events: Counter,
        /// Events that came after their window could no longer change.
        late_events: Counter,
        /// Of these, events committed to the outbox of the late output.
        sent_late_events: Counter,
        /// Events dead-lettered by the aggregate.
        rejected_events: Counter,
        /// Results committed to the outbox.
        results: Counter,
        /// Dead letters written.
        dead_letters: Counter,
        /// Stamps more than `skew` ahead of their arrival: dead letters, counted among the rejected.
        ahead_rejected_stamps: Counter,
        /// Stamps more than `skew` ahead of their arrival, replaced by it.
        ahead_arrival_stamps: Counter,
        /// Stamps more than `skew` ahead of their arrival, moved to that bound.
        ahead_clamped_stamps: Counter,
        /// Stamps more than `past` behind their arrival: dead letters, counted among the rejected.
        past_rejected_stamps: Counter,
        /// Stamps more than `past` behind their arrival, replaced by it.
        past_arrival_stamps: Counter,
        /// Stamps more than `past` behind their arrival, moved to that bound.
        past_clamped_stamps: Counter,
        /// Messages without a stamp, which have the time of their arrival.
        missing_arrival_stamps: Counter,
        /// Messages that came while the host's clock was not set, or behind the journal: the latest arrival counts.
        clock_behind_messages: Counter,
        /// Dead letters of decode and the transforms that were given in again.
        replayed_messages: Counter,
        /// Dead letters of what comes behind the transforms that were given in again.
        replayed_events: Counter,
        /// Results and windows' states among the dead letters that were given in again.
        replayed_results: Counter,
        /// Replays that were used or dropped by a transform: neither late nor refused again.
        succeeded_replays: Counter,
        /// Commits.
        commits: Counter,
        /// Windows open.
        open_windows: Gauge,
        /// Keys that have some: at most `window.keys_max`.
        open_keys: Gauge,
        /// Bytes of window state held, most of them on the disk.
        state_bytes: Gauge,
        /// Bytes of memory that window state takes: at most `agent.window_memory_max` and what changed since the
        /// last commit.
        window_memory_bytes: Gauge,
        /// Names that stateful transforms remember: at most `state_names_max` each.
        remembered_names: Gauge,
        /// Watermark, in microseconds since the Unix epoch.
        watermark_micros: Gauge,
        /// Messages in the journal that the pipeline has not committed.
        lag_messages: Gauge,
        /// 1 while a commit waits for room in an outbox.
        blocked: Gauge,
        /// Results dropped by the policy of a full outbox.
        dropped_results: Counter,
        /// Results merged away into those of wider windows: so many fewer go upstream.
        coarsened_results: Counter,
        /// Results given up because they were too old.
        expired_results: Counter,
        /// Pairs of windows, or wider windows, that the module could not merge.
        failed_merges: Counter,
        /// Lines that report what went: in the outbox, or delivered.
        report_lines: Gauge,
        /// Late events dropped by the policy of the late output's full outbox.
        dropped_late_events: Counter,
        /// Late events given up because they were too old when they were still to be delivered.
        expired_late_events: Counter,
        /// Lines that report which late events went: in the late output's outbox, or delivered.
        late_report_lines: Gauge,
        /// Dead letters given up over quota or too old, before they were replayed.
        given_up_letters: Counter,
        /// Messages given up unread because they were too old.
        expired_messages: Counter,
        /// 1 while it stands still because a module trips.
        paused: Gauge,
        /// 1 while events on which a transform trips pass as they came.
        bypassing: Gauge,
        /// Events that passed a transform as they came, since it tripped on them.
        bypassed_events: Counter,
        /// Switches to another version of the modules.
        swaps: Counter,
        /// Versions of the modules that were refused while another one ran.
        refused_swaps: Counter,
        /// Versions taken back because they tripped.
        rollbacks: Counter,
        /// 1 while another version of the modules runs beside.
        shadowing: Gauge,
        /// Differences between the two, when that ended.
        shadow_differences: Counter,
    }
);

stage!(
    /// One `[output.NAME]`.
    Output, Outputs, "output", "an `[output.NAME]`", {
        /// Results confirmed by the destination.
        delivered_results: Counter,
        /// Batches confirmed by the destination.
        delivered_batches: Counter,
        /// Bytes of confirmed bodies, as sent.
        delivered_bytes: Counter,
        /// Requests begun.
        attempts: Counter,
        /// How long the next attempt is put off, in milliseconds; 0 while none is.
        put_off_millis: Gauge,
        /// Attempts that failed and are repeated.
        failed_attempts: Counter,
        /// Results dead-lettered because the destination refused them alone.
        rejected_results: Counter,
        /// Results lost from the outbox by damage.
        lost_results: Counter,
        /// Results and reports in the outbox that are not confirmed.
        pending_results: Gauge,
        /// 1 while the circuit breaker is open.
        breaker_open: Gauge,
    }
);

stage!(
    /// Reloads of the configuration, labelled `config`.
    Reload, Reloads, "reload", "`config`", {
        /// Times the file was read again and was good.
        done: Counter,
        /// Times it was refused as a whole.
        refused: Counter,
    }
);

stage!(
    /// The ledger, labelled with the equation: see `ledger.rs`.
    Imbalance, Imbalances, "ledger", "an equation of the ledger", {
        /// Records that an equation of the ledger misses (or has too many, below 0), 0 while it holds.
        imbalance_records: Gauge,
    }
);

/// All families; hands out the stages' handles.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    modules: host::TripFamilies,
    compiles: host::CompileFamilies,
    fetches: host::FetchFamilies,
    reloads: Reloads,
    inputs: Inputs,
    logs: store::Logs,
    disks: store::Disks,
    pipelines: Pipelines,
    calls: host::CallFamilies,
    outputs: Outputs,
    imbalances: Imbalances,
}

impl Metrics {
    /// A registry with every family in it.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            modules: host::TripFamilies::default(),
            compiles: host::CompileFamilies::default(),
            fetches: host::FetchFamilies::default(),
            reloads: Reloads::default(),
            inputs: Inputs::default(),
            logs: store::Logs::default(),
            disks: store::Disks::default(),
            pipelines: Pipelines::default(),
            calls: host::CallFamilies::default(),
            outputs: Outputs::default(),
            imbalances: Imbalances::default(),
        };
        let registry = &mut metrics.registry;
        metrics.modules.register(registry);
        metrics.compiles.register(registry);
        metrics.fetches.register(registry);
        metrics.reloads.register(registry);
        metrics.inputs.register(registry);
        metrics.logs.register(registry);
        metrics.disks.register(registry);
        metrics.pipelines.register(registry);
        metrics.calls.register(registry);
        metrics.outputs.register(registry);
        metrics.imbalances.register(registry);
        metrics
    }

    /// The table of all metrics, for their documentation.
    #[must_use]
    pub fn entries() -> Vec<MetricEntry> {
        [
            host::TripFamilies::entries(),
            host::CompileFamilies::entries(),
            host::FetchFamilies::entries(),
            Reloads::entries(),
            Inputs::entries(),
            store::Logs::entries(),
            store::Disks::entries(),
            Pipelines::entries(),
            host::CallFamilies::entries(),
            Outputs::entries(),
            Imbalances::entries(),
        ]
        .concat()
    }

    /// The handle of the input of that name.
    #[must_use]
    pub fn input(&self, name: &str) -> Input {
        self.inputs.named(name)
    }

    /// The handles of the store.
    #[must_use]
    pub fn store(&self) -> StoreMetrics {
        StoreMetrics { logs: self.logs.clone(), disk: self.disks.named("state") }
    }

    /// The handle of the pipeline of that name.
    #[must_use]
    pub fn pipeline(&self, name: &str) -> Pipeline {
        self.pipelines.named(name)
    }

    /// The handle of the module calls of the pipeline of that name.
    #[must_use]
    pub fn calls(&self, pipeline: &str) -> CallMetrics {
        self.calls.named(pipeline)
    }

    /// Shows the input of that name no more.
    pub fn forget_input(&self, name: &str) {
        self.inputs.forget(name);
    }

    /// Shows the pipeline of that name no more, nor its modules: so many transforms, and an aggregate.
    pub fn forget_pipeline(&self, name: &str, transforms: usize) {
        self.pipelines.forget(name);
        self.calls.forget(name);
        self.modules.forget(&format!("{name}/aggregate"));
        for index in 0..transforms {
            self.modules.forget(&format!("{name}/transform[{index}]"));
        }
    }

    /// Shows the output of that name no more.
    pub fn forget_output(&self, name: &str) {
        self.outputs.forget(name);
    }

    /// The handle of the reloads.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.reloads.named("config")
    }

    /// The handles of modules.
    #[must_use]
    pub fn trips(&self) -> TripHandles {
        TripHandles::new(self.modules.clone())
    }

    /// The handles of the module host.
    #[must_use]
    pub fn host(&self) -> HostMetrics {
        HostMetrics { compile: self.compiles.named("modules"), fetch: self.fetches.named("modules") }
    }

    /// The handle of the output of that name.
    #[must_use]
    pub fn output(&self, name: &str) -> Output {
        self.outputs.named(name)
    }

    /// The handle of the ledger's equation of that name.
    #[must_use]
    pub fn imbalance(&self, equation: &str) -> Imbalance {
        self.imbalances.named(equation)
    }

    /// The text that `/metrics` answers (OpenMetrics).
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a String cannot fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_meter::MetricKind;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_is_that_of_the_text() {
        let metrics = Metrics::new();
        metrics.store().log("journal").appended_records.inc();
        metrics.trips().module("p/transform[0]").trips.inc();
        drop((metrics.input("i"), metrics.pipeline("p"), metrics.calls("p"), metrics.output("o")));
        drop((metrics.reload(), metrics.host(), metrics.imbalance("source")));
        let text = metrics.encode();
        let shown: BTreeSet<&str> = text.lines().filter(|line| line.starts_with("# ")).collect();
        let mut listed = BTreeSet::from(["# EOF".to_owned()]);
        for MetricEntry { name, help, kind, .. } in Metrics::entries() {
            let kind = match kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            assert!(listed.insert(format!("# HELP {name} {help}.")), "{name} is there twice");
            listed.insert(format!("# TYPE {name} {kind}"));
        }
        assert_eq!(listed.iter().map(String::as_str).collect::<BTreeSet<_>>(), shown);
        for entry in Metrics::entries() {
            let sample = format!("\n{}{{name=", entry.exposed_name());
            assert!(text.contains(&sample), "{sample}");
        }
    }
}
