//! The metrics of the module host.

use headwater_meter::stage;

stage!(
    /// The calls of the modules of one `[pipeline.NAME]`.
    CallMetrics, CallFamilies, "pipeline", "a `[pipeline.NAME]`", {
        /// Module calls that ended in a trap, a deadline or a limit.
        module_traps: Counter,
        /// Time in modules, in microseconds.
        module_micros: Counter,
        /// Log lines of modules dropped over the bound.
        module_log_dropped_lines: Counter,
    }
);

stage!(
    /// The trips of one module, labelled `PIPELINE/transform[0]` or `PIPELINE/aggregate`.
    TripMetrics, TripFamilies, "module", "the place of a module: `PIPELINE/transform[0]` or `PIPELINE/aggregate`", {
        /// Inputs on which it ended in a trap, at its deadline or at a limit.
        trips: Counter,
    }
);

stage!(
    /// The compiling of modules, labelled `modules`.
    CompileMetrics, CompileFamilies, "compile", "`modules`", {
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
    /// The fetching of modules, labelled `modules`.
    FetchMetrics, FetchFamilies, "fetch", "`modules`", {
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

/// The handles of all modules' trips, made as they are needed.
#[derive(Clone, Debug)]
pub struct TripHandles(TripFamilies);

impl TripHandles {
    /// Returns handles that belong to these families.
    #[must_use]
    pub fn new(families: TripFamilies) -> Self {
        Self(families)
    }

    /// Returns the handle of the module at that place: `PIPELINE/transform[0]`.
    #[must_use]
    pub fn module(&self, place: &str) -> TripMetrics {
        self.0.named(place)
    }
}

/// The handles of one host.
#[derive(Clone, Debug, Default)]
pub struct HostMetrics {
    /// The handle of compiling modules.
    pub compile: CompileMetrics,
    /// The handle of fetching modules.
    pub fetch: FetchMetrics,
}
