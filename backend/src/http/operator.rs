//! What the internal listener answers: to the operator, and to a load balancer that looks there. No client reaches it.

use actix_web::{HttpResponse, http::StatusCode, web};

use crate::health::Health;

/// The routes of the internal listener.
pub fn configure(health: &Health) -> impl FnOnce(&mut web::ServiceConfig) + use<> {
    let health = web::Data::new(health.clone());
    move |app| {
        app.app_data(health).route("/health", web::get().to(health_details)).route("/ready", web::get().to(ready));
    }
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
