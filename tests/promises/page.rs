//! The collector's page in a browser: it loads, it updates, and the console has no complaints.

use std::path::Path;
use std::time::Duration;

use headwater_tests::agent::TestAgent;
use headwater_tests::broker::MosquittoBroker;
use headwater_tests::collector::TestCollector;
use headwater_tests::plant::{self, ConfigBuilder, KEY, PlantLoad, TOPICS};
use headwater_tests::process::{built_program, eventually};
use headwater_tests::publisher::TestPublisher;
use headwater_tests::webdriver::HeadlessBrowser;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_live_points_without_a_console_error() {
    let broker = MosquittoBroker::start_unsaved().await;
    let collector = TestCollector::start().await;
    let plan = ConfigBuilder::default()
        .input("plant", broker.port(), &[TOPICS], "5")
        .pipeline("windows", "plant", "central", &plant::windowed(KEY, "1s", "0s", "0s"))
        .output("central", &collector.url(), "");
    let _agent = TestAgent::start(plan.toml()).await;
    let publisher = TestPublisher::connect("plant", broker.port());
    let mut load = PlantLoad::new(6);
    publish(&publisher, &mut load, 3_000).await;
    eventually("results at the collector", SOON, async || {
        (collector.results().await.len() > 60).then_some(())
    })
    .await;

    let browser = HeadlessBrowser::start().await.expect("chromium starts");
    browser.open(&collector.page()).await.expect("the page loads");
    let (first, before) = drawn(&browser, 60, None).await;
    assert_eq!(first, collector.results().await.len() as u64, "the page counts what is stored");
    publish(&publisher, &mut load, 3_000).await;
    // More results and another picture of them must appear without a reload.
    drawn(&browser, first + 60, Some(before)).await;

    save(&browser.screenshot().await.expect("a picture"));
    let console = browser.console().await.expect("the browser's log");
    let bad = |level: &str| matches!(level, "SEVERE" | "WARNING");
    let errors: Vec<_> = console.iter().filter(|entry| entry["level"].as_str().is_some_and(bad)).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// Waits until the page says that at least `least` results are stored and the plot differs from `before`.
/// Returns that number, and the number of pixels of the plot that are not empty with a sum over them.
async fn drawn(browser: &HeadlessBrowser, least: u64, before: Option<(u64, u64)>) -> (u64, (u64, u64)) {
    eventually(&format!("{least} results in the page, and their plot"), SOON, async || {
        let state = browser.evaluate(STATE).await.expect("the page can be asked");
        let of = |name: &str| state[name].as_u64();
        let results = of("results")?;
        let pixels = of("pixels")?;
        let sum = of("sum")?;
        let plot = (pixels, sum);
        let drawn = pixels > 1_000 && before != Some(plot);
        (state["state"] == "live" && results >= least && drawn).then_some((results, plot))
    })
    .await
}

const STATE: &str = "
    let pixels = 0, sum = 0;
    for (const canvas of document.querySelectorAll('#chart canvas')) {
        const copy = new OffscreenCanvas(canvas.width, canvas.height)
            .getContext('2d', { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const data = copy.getImageData(0, 0, canvas.width, canvas.height).data;
        for (let i = 0; i < data.length; i += 4) if (data[i + 3]) {
            pixels += 1;
            sum = (sum * 31 + i + data[i] * 7 + data[i + 1] * 5 + data[i + 2] * 3) % 1000000007;
        }
    }
    return {
        state: document.getElementById('status').dataset.state,
        results: Number(document.getElementById('sum-results').textContent.replace(/[^0-9]/g, '')),
        pixels, sum,
    };";

async fn publish(publisher: &TestPublisher, load: &mut PlantLoad, count: usize) {
    for _ in 0..count {
        let (topic, payload) = load.reading();
        publisher.publish(&topic, payload).await;
    }
    publisher.confirmed().await;
}

/// Saves the picture beside the built programs, for people to look at.
fn save(picture: &str) {
    let folder = built_program("collector_under_test")
        .parent()
        .and_then(Path::parent)
        .expect("a target folder")
        .to_owned();
    let path = folder.join("page.png");
    std::fs::write(&path, headwater_tests::webdriver::decode(picture)).expect("a writable target folder");
    eprintln!("screenshot: {}", path.display());
}
