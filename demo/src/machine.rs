//! Real readings: the machine that the demo runs on.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use sysinfo::{Components, System};

use super::publisher::Sensor;

/// Sensors of this machine; temperatures where it has them.
#[derive(Debug)]
pub(super) struct Machine {
    system: System,
    components: Components,
}

impl Machine {
    pub(super) fn open() -> anyhow::Result<Self> {
        let system = System::new().context("failed to read this machine's load")?;
        let components =
            Components::new_with_refreshed_list().context("failed to list this machine's sensors")?;
        Ok(Self { system, components })
    }
}

impl Sensor for Machine {
    fn every(&self) -> Duration {
        Duration::from_millis(250)
    }

    #[expect(clippy::cast_precision_loss, reason = "a share of memory needs no more precision")]
    fn read(&mut self) -> Vec<(String, Vec<u8>)> {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.components.refresh(false);
        let memory = self.system.used_memory() as f64 / self.system.total_memory().max(1) as f64 * 100.0;
        let mut readings = vec![
            ("machine/cpu".to_owned(), json!({ "percent": self.system.global_cpu_usage() })),
            ("machine/memory".to_owned(), json!({ "percent": memory })),
        ];
        for component in &self.components {
            let celsius = component.temperature().filter(|celsius| celsius.is_finite());
            let label = component.label().replace(['/', '+', '#', '\0'], "-");
            readings
                .extend(celsius.map(|celsius| (format!("machine/{label}"), json!({ "celsius": celsius }))));
        }
        readings.into_iter().map(|(topic, payload)| (topic, payload.to_string().into_bytes())).collect()
    }
}
