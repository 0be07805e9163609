use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use super::*;

/// No API server is needed for what these tests do.
fn manager() -> Manager {
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    Manager::new(config, Options { admin: Some(([127, 0, 0, 1], 0).into()), ..Options::default() })
}

#[tokio::test]
async fn a_stop_ends_the_leaders_tasks_before_everything_else() {
    let mut manager = manager();
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&order);
    manager.task("cache", move |stop| async move {
        stop.cancelled().await;
        log.lock().unwrap().push("cache");
        Ok(())
    });
    let log = Arc::clone(&order);
    manager.leader_task("controller", move |stop| {
        let log = Arc::clone(&log);
        async move {
            stop.cancelled().await;
            tokio::task::yield_now().await;
            log.lock().unwrap().push("controller");
            Ok(())
        }
    });
    let (stop, readiness) = (CancellationToken::new(), manager.readiness().clone());
    let running = tokio::spawn(manager.run(stop.clone()));
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(*order.lock().unwrap(), ["controller", "cache"]);
    assert_eq!(readiness.waiting(), ["stopping"]);
}

#[tokio::test]
async fn a_task_that_fails_or_panics_ends_the_process_and_is_named() {
    for (panics, expected) in
        [(false, "task \"observer\" failed: no luck"), (true, "task \"observer\" panicked: no luck")]
    {
        for leader in [false, true] {
            let mut manager = manager();
            let ended = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&ended);
            manager.leader_task("controller", move |stop| {
                let seen = Arc::clone(&seen);
                async move {
                    stop.cancelled().await;
                    seen.store(true, Ordering::SeqCst);
                    Ok(())
                }
            });
            let fail = move |_: CancellationToken| async move {
                assert!(!panics, "no luck");
                Err(TaskError::from("no luck"))
            };
            if leader {
                manager.leader_task("observer", fail);
            } else {
                manager.task("observer", fail);
            }
            let error = manager.run(CancellationToken::new()).await.unwrap_err();
            assert_eq!(crate::text::chain(&error), expected);
            assert!(leader || ended.load(Ordering::SeqCst), "the other tasks were asked to stop");
        }
    }
}
