//! The state folder: whose it is, and waiting for room to open it.

use std::path::Path;
use std::time::Duration;

use super::Error;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::{self, Quotas, Store};

/// How often a start that waits for disk space looks for it.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// The file in the state folder that names its owner.
const AGENT_ID_FILE: &str = "agent.id";

/// Opens the store. On a full disk it waits for room, having touched nothing.
pub(super) async fn open(config: &Config, metrics: &Metrics) -> Result<Store, Error> {
    loop {
        match try_open(config, metrics) {
            Err(error) if error.is_full() => {
                tracing::error!(%error, "agent waits for disk space before it starts");
                tokio::time::sleep(ROOM_EVERY).await;
            }
            opened => return opened,
        }
    }
}

fn try_open(config: &Config, metrics: &Metrics) -> Result<Store, Error> {
    let agent = &config.agent;
    claim(&agent.state, &agent.id)?;
    crate::fail::point("agent.claimed");
    let mut store = store::Config::new(agent.state.join("store"));
    store.ballast_bytes = agent.ballast_bytes;
    store.window_memory_max = agent.window_memory_max;
    let outboxes = config
        .outputs
        .iter()
        .flat_map(|(name, output)| [(name.clone(), output.outbox), (store::late(name), output.late)]);
    store.quotas =
        Quotas { journal: agent.journal, dead_letters: agent.dead_letters, outboxes: outboxes.collect() };
    Ok(Store::open(&store, &metrics.store())?)
}

/// Makes the state folder this agent's: results in it carry its id, as their batches must.
fn claim(state: &Path, id: &str) -> Result<(), Error> {
    let failed = |source| Error::State { path: state.to_owned(), source };
    std::fs::create_dir_all(state).map_err(failed)?;
    let file = state.join(AGENT_ID_FILE);
    match std::fs::read_to_string(&file) {
        Ok(found) if found == id => Ok(()),
        // An empty one is what a power cut may leave of the write below.
        Ok(found) if !found.is_empty() => {
            Err(Error::Another { path: state.to_owned(), found, id: id.to_owned() })
        }
        Ok(_) => std::fs::write(&file, id).map_err(failed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(&file, id).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_belongs_to_one_agent() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        claim(&state, "one").unwrap();
        claim(&state, "one").unwrap();
        let refused = claim(&state, "two").unwrap_err().to_string();
        assert!(refused.contains("belongs to the agent `one`"), "{refused}");
    }
}
