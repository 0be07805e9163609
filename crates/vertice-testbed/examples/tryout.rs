use std::time::{Duration, Instant};
use vertice_testbed::{cluster::*, report::Reporter};
#[tokio::main]
async fn main() {
    let n: u8 = std::env::args().nth(1).map_or(1, |a| a.parse().unwrap());
    let hold: u64 = std::env::args().nth(2).map_or(0, |a| a.parse().unwrap());
    let begin = Instant::now();
    let mut o = ClusterOptions::new("try", n);
    o.metrics_server = std::env::var("METRICS").is_ok();
    o.reporter = Reporter::new(move |l| println!("[{:5.1}] {l}", begin.elapsed().as_secs_f64()));
    match Cluster::start(o).await {
        Ok(c) => {
            println!("{} env {}", begin.elapsed().as_secs_f64(), c.env_file().display());
            tokio::time::sleep(Duration::from_secs(hold)).await;
            let t = Instant::now();
            c.shutdown().await.unwrap();
            println!("shutdown {:?}", t.elapsed());
        }
        Err(e) => println!("{}", snafu::Report::from_error(e)),
    }
}
