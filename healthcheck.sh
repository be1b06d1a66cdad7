#!/bin/sh
# The container's health check, at the path where it has always been.
exec harp health
