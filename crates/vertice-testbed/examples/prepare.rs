//! Builds every part and image of the testbed ahead of time, and tells what each took:
//! `cargo run --package vertice-testbed --example prepare [product]`. With `product`, our own images as well.
#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::error::Error;

use vertice_testbed::images::{self, Image, Triple};
use vertice_testbed::ledger::{Ledger, cache_weights, human_bytes};
use vertice_testbed::parts::{self, Part};
use vertice_testbed::paths::Paths;
use vertice_testbed::report::Reporter;

fn main() -> Result<(), Box<dyn Error>> {
    let paths = Paths::locate();
    let ledger = Ledger::open(&paths, Reporter::new(|line| println!("{line}")));
    let parts = parts::ensure(&paths, &Part::ALL, &ledger)?;
    let mut made: Vec<Image> = vec![
        images::pause(&paths, &parts)?,
        images::coredns(&paths, &parts)?,
        images::metrics_server(&paths, &parts)?,
        images::versitygw(&paths, &parts)?,
        images::postgres15(&paths, &parts)?,
    ];
    if std::env::args().nth(1).as_deref() == Some("product") {
        let product = images::product(&paths, &ledger, &Triple::host())?;
        made.extend([product.vertice, product.agent]);
    }
    for image in made {
        println!("{} {}", image.reference, human_bytes(image.bytes()?));
    }
    println!("{}", ledger.table()?);
    for (cache, bytes) in cache_weights(&paths) {
        println!("{cache}: {}", human_bytes(bytes));
    }
    Ok(())
}
