//! What the internal listener answers: to the operator, and to a load balancer that looks there. No client reaches it.

use actix_web::{HttpResponse, http::StatusCode, web};

use crate::{health::Health, measures::Measures};

/// The routes of the internal listener.
pub fn configure(health: &Health, measures: &Measures) -> impl FnOnce(&mut web::ServiceConfig) + use<> {
    let (health, measures) = (web::Data::new(health.clone()), web::Data::new(measures.clone()));
    move |app| {
        app.app_data(health)
            .app_data(measures)
            .route("/health", web::get().to(health_details))
            .route("/ready", web::get().to(ready))
            .route("/metrics", web::get().to(metrics));
    }
}

/// For Prometheus.
async fn metrics(measures: web::Data<Measures>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(measures.render())
}

/// Details are for the operator, so they are on the internal listener only.
async fn health_details(health: web::Data<Health>) -> HttpResponse {
    let report = health.report();
    let status = StatusCode::from_u16(report.status.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).json(report)
}

/// For a load balancer that looks at the internal listener.
async fn ready(health: web::Data<Health>) -> HttpResponse {
    let status = if health.is_ready() { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::new(status)
}
