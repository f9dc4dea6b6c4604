"""Makes the bundled policy: a small OpenVLA-OFT, trained on a scripted expert's demonstrations."""
