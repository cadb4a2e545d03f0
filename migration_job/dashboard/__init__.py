"""The light page that shows a stage where Grafana cannot be had."""
