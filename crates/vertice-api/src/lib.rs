//! Every custom resource of Vertice: types, defaults and CEL rules.
//!
//! One folder a group, one file a kind. Nothing here talks to a cluster, reads a clock or does I/O, so the
//! operators, the agent, the command line and the code generator can all depend on it.
//!
//! | group | kinds |
//! |---|---|
//! | [`vertice_io`] (`vertice.io/v1alpha1`) | [`VerticeBackup`](vertice_io::VerticeBackup), [`VerticeRestore`](vertice_io::VerticeRestore) |

// KubeSchema expands to helper types that it marks `pub` inside a function body.
#![allow(unreachable_pub)]

pub mod duration;
pub mod vertice_io;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

/// The definitions of all kinds, in the order in which `deploy/crds` lists them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![vertice_io::VerticeBackup::crd(), vertice_io::VerticeRestore::crd()]
}
