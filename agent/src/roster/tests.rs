use super::*;
use crate::pipeline::PipelineMailbox;

const CONFIG: &str = r##"
[agent]
id = "gw"
state = "state"
[input.plant]
mqtt = { url = "mqtt://127.0.0.1", topics = ["#"] }
[pipeline.each]
input = "plant"
key = "k"
output = "central"
[output.central]
http = { url = "http://127.0.0.1:9/v1/batches" }
"##;

fn pipeline(metrics: &Metrics, mailbox: Arc<PipelineMailbox>) -> PipelineEntry {
    let config = crate::config::parse(std::path::Path::new("agent.toml"), CONFIG).unwrap();
    let config = &config.pipelines["each"];
    PipelineEntry::new(config, mailbox, Arc::default(), metrics.pipeline("p"), metrics.calls("p"))
}

#[tokio::test]
async fn every_reader_sees_what_is_added_and_removed_while_all_runs() {
    let metrics = Arc::new(Metrics::new());
    let roster = Roster::new(metrics.clone());
    let mut early = roster.reader();
    let mailbox = Arc::<PipelineMailbox>::default();
    roster.add_input("i", InputEntry::new(metrics.input("i"))).unwrap();
    roster.add_pipeline("p", pipeline(&metrics, mailbox.clone())).unwrap();
    early.changed().await;
    let before = early.current();
    assert!(Arc::ptr_eq(&before.pipelines["p"].mailbox, &mailbox), "the handle that was entered");
    for reader in [early.clone(), roster.reader()] {
        assert!(reader.current().inputs.contains_key("i") && reader.current().outputs.is_empty());
    }
    assert!(roster.remove_pipeline("p").is_some());
    early.changed().await;
    assert!(early.current().pipelines.is_empty(), "and gone for all who look from now on");
    assert!(before.pipelines.contains_key("p"), "a look is of one moment");
    assert!(roster.remove_pipeline("p").is_none());
    let late = roster.reader();
    drop(roster);
    assert!(late.current().inputs.contains_key("i"), "the last one stays");
}

#[test]
fn a_name_is_given_once_and_no_more_are_added_than_may_run() {
    let metrics = Arc::new(Metrics::new());
    let roster = Roster::new(metrics.clone());
    let add = |name: &str| roster.add_input(name, InputEntry::new(metrics.input(name)));
    for number in 0..INPUTS_MAX {
        add(&format!("i{number}")).unwrap();
    }
    let taken = add("i7").unwrap_err();
    assert_eq!(taken.to_string(), "failed to add the input `i7`: one of that name runs; remove it first");
    assert!(add("one-more").unwrap_err().to_string().contains("256 run, which is the most"));
    roster.remove_input("i7").unwrap();
    add("one-more").unwrap();
}

#[test]
fn the_counts_of_a_removed_input_stay_in_the_equation_of_the_journal() {
    let metrics = Arc::new(Metrics::new());
    let roster = Roster::new(metrics.clone());
    roster.add_input("i", InputEntry::new(metrics.input("i"))).unwrap();
    metrics.input("i").journaled_messages.inc_by(5);
    metrics.input("i").in_flight_messages.set(2);
    roster.remove_input("i").unwrap();
    assert_eq!(roster.reader().current().departed, DepartedInputs { journaled: 5, in_flight: 2 });
    assert_eq!(metrics.input("i").journaled_messages.get(), 0, "another one of that name counts anew");
}
