//! Every metric's name, unit and labels.
//!
//! A stage gets a handle of plain counters for its own labels and never sees the registry.
//! Names are `headwater_<stage>_<noun>_<unit>`; counters get `_total` from the encoder. Labels
//! are names from the configuration only, so their number is bounded by it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    name: String,
}

/// Held while counts change that belong together, and while the ledger reads them. Never across
/// an await, never two of them by a stage.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<Mutex<()>>);

impl Turn {
    fn take(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Declares a stage's handle, its families and their registration in one place.
macro_rules! stage {
    ($(#[$doc:meta])* $handle:ident, $families:ident, $prefix:literal, { $($(#[doc = $help:literal])* $field:ident: $kind:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub struct $handle { turn: Turn, $($(#[doc = $help])* pub $field: $kind,)* }

        impl $handle {
            /// While this is held nobody reads counts that do not belong together.
            pub fn turn(&self) -> MutexGuard<'_, ()> {
                self.turn.take()
            }

            /// All of them by name, as `/status` shows them.
            #[must_use]
            pub fn values(&self) -> serde_json::Value {
                let values = [$((stringify!($field), serde_json::Value::from(self.$field.get())),)*];
                values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }
        }

        #[derive(Clone, Debug, Default)]
        pub(crate) struct $families { turn: Family<Name, Turn>, $($field: Family<Name, $kind>,)* }

        impl $families {
            fn register(&self, registry: &mut Registry) {
                $(registry.register(
                    concat!("headwater_", $prefix, "_", stringify!($field)),
                    concat!($($help,)*).trim().trim_end_matches('.'),
                    self.$field.clone(),
                );)*
            }

            pub(crate) fn named(&self, name: &str) -> $handle {
                let label = Name { name: name.to_owned() };
                let turn = self.turn.get_or_create(&label).clone();
                $handle { turn, $($field: self.$field.get_or_create(&label).clone(),)* }
            }
        }
    };
}

stage!(
    /// One `[input.NAME]`.
    Input, Inputs, "input", {
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
    /// The store, labelled with the log it writes: `journal`, `outbox/NAME`, `dead-letters`, `meta`.
    Log, Logs, "store", {
        /// Records appended durably.
        appended_records: Counter,
        /// Record bytes appended durably, before framing.
        appended_bytes: Counter,
        /// Synced flushes.
        syncs: Counter,
        /// Time spent in synced flushes, in microseconds.
        sync_micros: Counter,
        /// Segments on disk.
        segments: Gauge,
        /// Records not yet trimmed.
        pending_records: Gauge,
        /// Damaged parts mended at this start.
        repairs: Counter,
        /// Records lost by damage that was mended at this start: each is in a report.
        lost_records: Counter,
        /// 1 while a write waits for room, and is tried again: appends (`journal`), commits (`meta`).
        waiting: Gauge,
        /// Disk that it takes.
        bytes: Gauge,
        /// Dead letters given up: over quota or too old.
        given_up_records: Counter,
        /// Disk that it may take.
        quota_bytes: Gauge,
        /// 1 while a write waits for room under the quota.
        blocked: Gauge,
    }
);

stage!(
    /// The disk of the state folder, labelled `state`.
    Disk, Disks, "disk", {
        /// 1 while there is too little room to append, or none for the ballast.
        full: Gauge,
        /// Writes held up because there is too little room.
        refused_writes: Counter,
        /// Bytes free when last looked at.
        free_bytes: Gauge,
        /// Bytes held back for a full disk; 0 while they are released.
        ballast_bytes: Gauge,
    }
);

stage!(
    /// One `[pipeline.NAME]`.
    Pipeline, Pipelines, "pipeline", {
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
        /// Module calls that ended in a trap, a deadline or a limit.
        module_traps: Counter,
        /// Time in modules, in microseconds.
        module_micros: Counter,
        /// Log lines of modules dropped over the bound.
        module_log_dropped_lines: Counter,
    }
);

stage!(
    /// One module, labelled `PIPELINE/transform[0]` or `PIPELINE/aggregate`.
    Module, Modules, "module", {
        /// Inputs on which it ended in a trap, at its deadline or at a limit.
        trips: Counter,
    }
);

stage!(
    /// Compiling modules, labelled `modules`.
    Compile, Compiles, "compile", {
        /// Modules compiled on this machine.
        modules: Counter,
        /// Modules that did not compile, or not within the bounds.
        refused_modules: Counter,
        /// Time that compiling took, those that were refused included, in microseconds.
        micros: Counter,
        /// Modules whose compiled code was here already.
        cached_modules: Counter,
        /// Modules that came as compiled code.
        precompiled_modules: Counter,
    }
);

stage!(
    /// Fetching modules, labelled `modules`.
    Fetch, Fetches, "fetch", {
        /// Files fetched: modules, and manifests of registries.
        files: Counter,
        /// Bytes of them.
        bytes: Counter,
        /// Times that a module could not be fetched.
        failures: Counter,
        /// Requests that were repeated, since what was wrong could pass.
        repeated_requests: Counter,
        /// Files removed to make room: no pipeline named them.
        evicted_files: Counter,
        /// Disk that what was fetched takes.
        kept_bytes: Gauge,
        /// Disk that it may take.
        kept_bytes_max: Gauge,
    }
);

/// The handles of all modules, made as they are needed.
#[derive(Clone, Debug)]
pub struct OfModules(Modules);

impl OfModules {
    /// The handle of the module at that place: `PIPELINE/transform[0]`.
    #[must_use]
    pub fn module(&self, place: &str) -> Module {
        self.0.named(place)
    }
}

stage!(
    /// One `[output.NAME]`.
    Output, Outputs, "output", {
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
    Reload, Reloads, "reload", {
        /// Times the file was read again and was good.
        done: Counter,
        /// Times it was refused as a whole.
        refused: Counter,
    }
);

stage!(
    /// The ledger, labelled with the equation: see `ledger.rs`.
    Imbalance, Imbalances, "ledger", {
        /// Records that an equation of the ledger misses (or has too many, below 0), 0 while it holds.
        imbalance_records: Gauge,
    }
);

/// All families; hands out the stages' handles.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    imbalances: Imbalances,
    inputs: Inputs,
    logs: Logs,
    disks: Disks,
    pipelines: Pipelines,
    modules: Modules,
    compiles: Compiles,
    fetches: Fetches,
    outputs: Outputs,
    reloads: Reloads,
}

impl Metrics {
    /// A registry with every family in it.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let (inputs, logs, disks) = (Inputs::default(), Logs::default(), Disks::default());
        let (pipelines, outputs) = (Pipelines::default(), Outputs::default());
        let modules = Modules::default();
        modules.register(&mut registry);
        let (compiles, fetches) = (Compiles::default(), Fetches::default());
        compiles.register(&mut registry);
        fetches.register(&mut registry);
        let reloads = Reloads::default();
        reloads.register(&mut registry);
        inputs.register(&mut registry);
        logs.register(&mut registry);
        disks.register(&mut registry);
        pipelines.register(&mut registry);
        outputs.register(&mut registry);
        let imbalances = Imbalances::default();
        imbalances.register(&mut registry);
        Self {
            registry,
            imbalances,
            inputs,
            logs,
            disks,
            pipelines,
            modules,
            compiles,
            fetches,
            outputs,
            reloads,
        }
    }

    /// The handle of the input of that name.
    #[must_use]
    pub fn input(&self, name: &str) -> Input {
        self.inputs.named(name)
    }

    /// The handle of the store's log of that name.
    #[must_use]
    pub fn log(&self, name: &str) -> Log {
        self.logs.named(name)
    }

    /// The handle of the state folder's disk.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.disks.named("state")
    }

    /// The handles of all logs, for those that are opened later.
    pub(crate) fn logs(&self) -> Logs {
        self.logs.clone()
    }

    /// The handle of the pipeline of that name.
    #[must_use]
    pub fn pipeline(&self, name: &str) -> Pipeline {
        self.pipelines.named(name)
    }

    /// The handle of the reloads.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.reloads.named("config")
    }

    /// The handles of modules.
    #[must_use]
    pub fn of_modules(&self) -> OfModules {
        OfModules(self.modules.clone())
    }

    /// The handle of compiling modules.
    #[must_use]
    pub fn compile(&self) -> Compile {
        self.compiles.named("modules")
    }

    /// The handle of fetching modules.
    #[must_use]
    pub fn fetch(&self) -> Fetch {
        self.fetches.named("modules")
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
