"""What compensating quantizers read of the calibration samples: Hessians of layer inputs."""
