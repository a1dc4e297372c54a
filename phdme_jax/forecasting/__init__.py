"""Floor 3: one's own measurements in, calibrated forecasts out: fit, conformalize, forecast, save, load."""
