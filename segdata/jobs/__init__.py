"""One verb a file: one public function that returns a report and never prints."""
